"""Write the event files of TensorBoard: scalars named as in metrics.jsonl, and pictures.

They are written at once and by this thread, without an operation of TensorFlow for each number (a resumed run of ten
thousand epochs writes hundreds of thousands of them), so that an error is raised here.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.data_compat import migrate_value
from tensorboard.summary.writer.record_writer import RecordWriter

from tfinpaint.layout import TENSORBOARD
from tfinpaint.storage.write_errors import naming_file

_VERSION = "brain.Event:2"  # the first record of every event file


class EventWriter:
    """A writer of event files that shows the phases of a run as two runs, in the folders `train/` and `test/`."""

    knows_past = False  # all epochs are written again, none twice

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}

    @classmethod
    def begin(cls, workdir: Path) -> EventWriter:
        """Return a writer for a run folder, without the files that it had before."""
        shutil.rmtree(workdir / TENSORBOARD, ignore_errors=True)
        return cls(workdir / TENSORBOARD)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the metrics in a record of metrics.jsonl."""
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in record.items()
            if name not in ("phase", "epoch") and isinstance(value, int | float)
        ]
        self._write(str(record["phase"]), record["epoch"], values)

    def add_picture(self, name: str, path: Path, epoch: int) -> None:
        """Add a PNG file to the test phase."""
        with Image.open(path) as file:
            width, height = file.size
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        self._write("test", epoch, [migrate_value(Summary.Value(tag=name, image=image))])

    def flush(self) -> None:
        """Pass everything to the operating system, so that TensorBoard can read it."""
        for phase, file in self._files.items():
            with naming_file(self._folder / phase):
                file.flush()

    def finish(self, ending: str, report: Path | None) -> None:
        """Close the files; a report is not shown."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _write(self, phase: str, epoch: int, values: list[Any]) -> None:
        if phase not in self._files:
            folder = self._folder / phase
            folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
            self._files[phase] = (folder / name).open("wb")
            self._record(phase, Event(wall_time=time.time(), file_version=_VERSION))
        self._record(phase, Event(wall_time=time.time(), step=epoch, summary=Summary(value=values)))

    def _record(self, phase: str, event: Any) -> None:
        with naming_file(self._folder / phase):
            RecordWriter(self._files[phase]).write(event.SerializeToString())
