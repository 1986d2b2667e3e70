"""Append-only logs of a run: metrics.jsonl, the seed tool's two text files, TensorBoard events."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfinpaint.files import write_text

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_NOT_METRICS = {"phase", "epoch", "seconds", "images_per_second", "world_size"}


class MetricsLog:
    """The metrics of a run, a record per epoch and phase. Writes nothing where `enabled` is false.

    A record: {"phase": "train" or "test", "epoch": from 1, "loss": ..., other metrics, "images_per_second",
    "seconds", "world_size"}.
    """

    def __init__(self, workdir: Path, outfile: Path | None, *, enabled: bool, first_epoch: int = 1) -> None:
        """
        Args:
            workdir: the run folder.
            outfile: `X.txt` makes `X_train.txt` and `X_test.txt`; None: neither.
            first_epoch: records of this epoch and later ones, left by an interrupted run, are dropped.
        """
        self.records: list[dict[str, Any]] = []
        self._path = workdir / METRICS
        self._outfile = outfile
        self._enabled = enabled
        if enabled:
            self.records = [record for record in read_metrics(workdir) if record["epoch"] < first_epoch]
            write_text(self._path, "".join(json.dumps(record) + "\n" for record in self.records))
            shutil.rmtree(workdir / TENSORBOARD, ignore_errors=True)  # its epochs are written anew, none twice
            self._board = _Board(workdir / TENSORBOARD)
            for record in self.records:
                self._board.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        if not self._enabled:
            return
        self.records.append(dict(record))
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self._write_outfile(str(record["phase"]))
        self._board.add(record)

    def _write_outfile(self, phase: str) -> None:
        if self._outfile is None:
            return
        self._outfile.parent.mkdir(parents=True, exist_ok=True)
        records = [record for record in self.records if record["phase"] == phase]
        names = metric_names(records)
        lines = ["# epoch " + " ".join(names)]
        lines += [" ".join([str(r["epoch"]), *(f"{r[name]:.8g}" for name in names)]) for r in records]
        write_text(outfile_of(self._outfile, phase), "\n".join(lines) + "\n")


def outfile_of(outfile: Path, phase: str) -> Path:
    """The seed tool's names: `X.txt` -> `X_train.txt` and `X_test.txt`."""
    return outfile.with_name(f"{outfile.stem}_{phase}{outfile.suffix}")


class _Board:
    """TensorBoard scalars, named as in metrics.jsonl, the phases as two runs of one chart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        import tensorflow as tf

        phase = str(record["phase"])
        if phase not in self._writers:
            self._writers[phase] = tf.summary.create_file_writer(str(self._folder / phase))
        writer = self._writers[phase]
        with writer.as_default():
            for name, value in record.items():
                if name not in ("phase", "epoch"):
                    tf.summary.scalar(name, value, step=record["epoch"])
        writer.flush()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The records of a run folder; [] where there are none. A last line cut off by a crash is passed over."""
    path = workdir / METRICS
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def metric_names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Loss first, then the other metrics, in the order they were recorded."""
    return list(dict.fromkeys(name for record in records for name in record if name not in _NOT_METRICS))


def series(records: Sequence[Mapping[str, Any]], phase: str, name: str) -> tuple[list[int], list[float]]:
    """(epochs, values) of one metric in one phase."""
    chosen = [record for record in records if record["phase"] == phase and name in record]
    return [record["epoch"] for record in chosen], [record[name] for record in chosen]
