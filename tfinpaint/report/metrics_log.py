"""Append-only logs of a run: metrics.jsonl, the seed tool's two text files, TensorBoard events, pictures by epoch."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfinpaint.layout import FIGURES, METRICS_LOG, RESTORATIONS, TENSORBOARD
from tfinpaint.report.tensorboard import Board
from tfinpaint.storage.atomic import write_text
from tfinpaint.storage.write_errors import naming
from tfinpaint.system.activity import reporting_activity

MOST_PICTURES = 100  # of restorations that a run keeps, on the disk and on TensorBoard
SEGMENTATION = {"accuracy": "share of pixels of the right class", "dice": "Dice coefficient, mean over the classes"}
_EPOCH = re.compile(r"epoch_(\d+)\.png")
_NOT_METRICS = {"phase", "epoch", "seconds", "images_per_second", "world_size"}


class MetricsLog:
    """The metrics of a run, a record per epoch and phase, and its pictures. Writes nothing where `enabled` is false.

    A record: {"phase": "train" or "test", "epoch": from 1, "loss": ..., other metrics, "images_per_second",
    "seconds", "world_size"}.

    Pictures that are drawn anew from time to time are files `epoch_<number>.png` in folders of `figures/`. A resumed
    run finds those of `figures/restorations/` there and shows them on TensorBoard again.
    """

    def __init__(
        self,
        workdir: Path,
        outfile: Path | None,
        *,
        enabled: bool,
        heading: bool = True,
        first_epoch: int = 1,
        records: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """
        Args:
            workdir: the run folder.
            outfile: `X.txt` makes `X_train.txt` and `X_test.txt`; None: neither.
            heading: these begin with a line that names the columns, and have values of 8 digits; without it the values
                have 8 decimals and no exponent, so that a script finds nothing but numbers.
            first_epoch: pictures of this epoch and later ones, left by an interrupted run, are dropped.
            records: of the epochs before; whatever else the folder's files hold is dropped.
        """
        self.records: list[dict[str, Any]] = []
        self._path = workdir / METRICS_LOG
        self._outfile = outfile
        self._enabled, self._heading = enabled, heading
        self._written: dict[str, list[str]] = {}  # phase -> columns of its text file
        if enabled:
            self.records = [dict(record) for record in records]
            write_text(self._path, "".join(json.dumps(record) + "\n" for record in self.records))
            shutil.rmtree(workdir / TENSORBOARD, ignore_errors=True)  # its epochs are written anew, none twice
            self._board = Board(workdir / TENSORBOARD)
            for record in reporting_activity(self.records):
                self._board.add(record)
            for folder in (workdir / FIGURES).glob("*/"):
                drop_later(folder, first_epoch)
            for epoch, path in reporting_activity(by_epoch(workdir / FIGURES / RESTORATIONS).items()):
                self._board.add_picture(RESTORATIONS, path, epoch)
            self._board.flush()

    def add(self, record: Mapping[str, Any]) -> None:
        if not self._enabled:
            return
        self.records.append(dict(record))
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._write_outfile(str(record["phase"]))
        self._board.add(record)
        self._board.flush()

    def add_picture(self, name: str, path: Path, epoch: int) -> None:
        """Show a PNG file on TensorBoard.

        Args:
            name: of the pictures that are one and the same at different epochs.
            path: `figures/restorations/epoch_<epoch>.png` where it is to be there again after a resume.
        """
        if self._enabled:
            self._board.add_picture(name, path, epoch)
            self._board.flush()

    def _write_outfile(self, phase: str) -> None:
        if self._outfile is None:
            return
        self._outfile.parent.mkdir(parents=True, exist_ok=True)
        path, records = outfile_of(self._outfile, phase), self.records
        names = self._written.get(phase, [])
        if set(metric_names(records[-1:])) <= set(names):  # the file has all earlier records in these columns
            with naming(path), path.open("a", encoding="utf-8") as file:
                file.write(self._line(records[-1], names))
            return
        records = [record for record in records if record["phase"] == phase]
        self._written[phase] = names = metric_names(records)
        heading = "# epoch " + " ".join(names) + "\n" if self._heading else ""
        write_text(path, heading + "".join(self._line(record, names) for record in records))

    def _line(self, record: Mapping[str, Any], names: Sequence[str]) -> str:
        form = ".8g" if self._heading else ".8f"
        return " ".join([str(record["epoch"]), *(f"{record.get(name, math.nan):{form}}" for name in names)]) + "\n"


def outfile_of(outfile: Path, phase: str) -> Path:
    """The seed tool's names: `X.txt` -> `X_train.txt` and `X_test.txt`."""
    return outfile.with_name(f"{outfile.stem}_{phase}{outfile.suffix}")


def epoch_file(folder: Path, epoch: int) -> Path:
    """The picture of an epoch, in a folder of them."""
    return folder / f"epoch_{epoch}.png"


def is_kept(number: int, total: int, most: int) -> bool:
    """Return whether a picture is one of about `most` that are evenly spread, the first and the last among them.

    Args:
        number: of the picture, from 1 to `total`, or beyond where a run went on for longer.
    """
    return number == 1 or number >= total or number % -(-total // most) == 0


def by_epoch(folder: Path) -> dict[int, Path]:
    """The pictures of a folder, epoch -> file, in order of the epochs; {} where there is no such folder."""
    found = {int(match[1]): path for path in folder.glob("*.png") if (match := _EPOCH.fullmatch(path.name))}
    return dict(sorted(found.items()))


def drop_later(folder: Path, first_epoch: int) -> None:
    """Delete the pictures of this epoch and later ones, left in a folder by an interrupted run."""
    for epoch, path in by_epoch(folder).items():
        if epoch >= first_epoch:
            path.unlink()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The records of a run folder; [] where there are none. A last line cut off by a crash is passed over."""
    path = workdir / METRICS_LOG
    records = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
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
