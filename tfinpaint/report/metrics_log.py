"""Write the logs of a run (metrics.jsonl, rmldnn's text files), tell its trackers, and find pictures by epoch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfinpaint.layout import FIGURES, METRICS_LOG, RESTORATIONS
from tfinpaint.report.tensorboard import EventWriter
from tfinpaint.report.trackers import Ending, Tracker
from tfinpaint.storage.atomic import write_text
from tfinpaint.storage.write_errors import naming_file
from tfinpaint.system.activity import reporting_activity

MOST_PICTURES = 100  # number of restorations that a run keeps on the disk and on TensorBoard
SEGMENTATION = {"accuracy": "share of pixels of the right class", "dice": "Dice coefficient, mean over the classes"}
_EPOCH = re.compile(r"epoch_(\d+)\.png")
_NOT_METRICS = {"phase", "epoch", "seconds", "images_per_second", "world_size"}


class MetricsLog:
    """A log of a run's metrics, with a record for each epoch and phase, and of its pictures.

    A record is {"phase": "train" or "test", "epoch": from 1, "loss": ..., other metrics, "images_per_second",
    "seconds", "world_size"}. Pictures of one kind are files `epoch_<number>.png` in a folder in `figures/`. A resumed
    run shows those in `figures/restorations/` again to a tracker that does not know them.
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
        trackers: Sequence[Tracker] | None = None,
    ) -> None:
        """Begin the log, or continue that of a resumed run.

        Args:
            workdir: the run folder.
            outfile: `X.txt` for the text files `X_train.txt` and `X_test.txt`; None for no text files.
            enabled: whether anything is written; true on rank 0.
            heading: whether the text files begin with a line that names the columns. With it values have 8 digits;
                without it 8 decimals and no exponent, so that the files contain nothing but plain numbers.
            first_epoch: pictures of this epoch and later ones, which an interrupted run has left, are deleted.
            records: the records of the epochs before; other records in the folder's files are deleted.
            trackers: which receive everything; None: TensorBoard alone.
        """
        self.records: list[dict[str, Any]] = []
        self._path = workdir / METRICS_LOG
        self._outfile = outfile
        self._enabled, self._heading = enabled, heading
        self._written: dict[str, list[str]] = {}  # phase -> columns of its text file
        self._trackers: Sequence[Tracker] = ()
        if enabled:
            self._trackers = [EventWriter.begin(workdir)] if trackers is None else trackers
            self.records = [dict(record) for record in records]
            write_text(self._path, "".join(json.dumps(record) + "\n" for record in self.records))
            for folder in (workdir / FIGURES).glob("*/"):
                delete_later_pictures(folder, first_epoch)
            for tracker in self._trackers:
                if not tracker.knows_past:
                    self._tell_past(tracker, pictures_by_epoch(workdir / FIGURES / RESTORATIONS))
                tracker.flush()

    def _tell_past(self, tracker: Tracker, pictures: Mapping[int, Path]) -> None:
        for record in reporting_activity(self.records):
            tracker.add(record)
        for epoch, path in reporting_activity(pictures.items()):
            tracker.add_picture(RESTORATIONS, path, epoch)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record to all files.

        Raises:
            OSError: A file cannot be written.
        """
        if not self._enabled:
            return
        self.records.append(dict(record))
        with naming_file(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._write_outfile(str(record["phase"]))
        for tracker in self._trackers:
            tracker.add(record)
            tracker.flush()

    def add_picture(self, name: str, path: Path, epoch: int) -> None:
        """Show a PNG file to the trackers.

        Args:
            name: the tag, which pictures of one kind share.
            path: the file; only `figures/restorations/epoch_<epoch>.png` is shown again after the run is resumed.
        """
        for tracker in self._trackers:
            tracker.add_picture(name, path, epoch)
            tracker.flush()

    def finish(self, ending: Ending, report: Path | None) -> None:
        """End the run for all trackers. Nothing is added afterwards.

        Args:
            report: the page of the run; None where it has none.
        """
        for tracker in self._trackers:
            tracker.finish(ending, report)
        self._trackers = ()

    def _write_outfile(self, phase: str) -> None:
        if self._outfile is None:
            return
        self._outfile.parent.mkdir(parents=True, exist_ok=True)
        path, records = outfile_of(self._outfile, phase), self.records
        names = self._written.get(phase, [])
        if set(metric_names(records[-1:])) <= set(names):  # the file has these columns already
            with naming_file(path), path.open("a", encoding="utf-8") as file:
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
    """Return rmldnn's name of a phase's text file: `X.txt` -> `X_train.txt` or `X_test.txt`."""
    return outfile.with_name(f"{outfile.stem}_{phase}{outfile.suffix}")


def epoch_picture(folder: Path, epoch: int) -> Path:
    """Return the path of an epoch's picture in a folder."""
    return folder / f"epoch_{epoch}.png"


def keeps_picture(number: int, total: int, most: int) -> bool:
    """Return whether a picture is among about `most` evenly spread ones, which include the first and the last.

    Args:
        number: the picture's, from 1 to `total`, or more if the run was prolonged.
    """
    return number == 1 or number >= total or number % -(-total // most) == 0


def pictures_by_epoch(folder: Path) -> dict[int, Path]:
    """Return epoch -> picture of a folder, in the order of the epochs; {} if there is no such folder."""
    found = {int(match[1]): path for path in folder.glob("*.png") if (match := _EPOCH.fullmatch(path.name))}
    return dict(sorted(found.items()))


def delete_later_pictures(folder: Path, first_epoch: int) -> None:
    """Delete the pictures of this epoch and later ones, which an interrupted run has left in a folder."""
    for epoch, path in pictures_by_epoch(folder).items():
        if epoch >= first_epoch:
            path.unlink()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Read the records of a run folder; [] if there are none. Damaged lines are skipped, as one that a crash cut."""
    path = workdir / METRICS_LOG
    records = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("phase"), str) and isinstance(record.get("epoch"), int):
            records.append(record)
    return records


def metric_names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all metrics, in the order in which they were recorded, loss first."""
    return list(dict.fromkeys(name for record in records for name in record if name not in _NOT_METRICS))


def metric_series(records: Sequence[Mapping[str, Any]], phase: str, name: str) -> tuple[list[int], list[float]]:
    """Return the epochs and the values of a metric in a phase."""
    chosen = [record for record in records if record["phase"] == phase and name in record]
    return [record["epoch"] for record in chosen], [record[name] for record in chosen]
