"""The folder of a run: locked by one process, protected from being overwritten, prepared when the run begins."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tfinpaint.checkpoint.find import epoch_and_step, find_weights, list_checkpoints
from tfinpaint.checkpoint.header import Kind
from tfinpaint.checkpoint.reader import read_header, read_progress
from tfinpaint.checkpoint.store import find_newest_intact
from tfinpaint.cli.options import Options
from tfinpaint.config.diff import as_values, differences, has_key
from tfinpaint.config.loader import dump_config, read_values
from tfinpaint.config.schema import Config
from tfinpaint.distributed.failures import HostsChangedError, RankLostError
from tfinpaint.errors import StoppedError, UserError, first_line
from tfinpaint.layout import (
    COMMUNICATION,
    ENDING,
    ENVIRONMENT,
    FIGURES,
    LOCK,
    METRICS_LOG,
    NONFINITE_BATCHES,
    PROJECT,
    REPORT,
    RESOLVED_CONFIG,
    SUMMARY,
    TENSORBOARD,
    TRACKERS,
)
from tfinpaint.report.about import command_line, now
from tfinpaint.report.metrics_log import outfile_of
from tfinpaint.report.trackers import Ending
from tfinpaint.runs.bad_images import BadImage, begin_bad_images
from tfinpaint.runs.known_images import IMAGES, describe_images
from tfinpaint.runs.lock import RunLock
from tfinpaint.storage.atomic import clean_up, find_damage, remove_folder, set_aside, write_json, write_text
from tfinpaint.system.installation import versions
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)

_NAMES = {
    "inpainter": "a pretraining",
    "classifier": "a classifier",
    "encoder": "an encoder",
}  # of kinds of checkpoints


class RunFolder:
    """The folder of a run and that of its checkpoints, locked from `open` to the end of a `with` statement.

    Attributes:
        path: of the folder, `workdir`.
        checkpoints: folder of the checkpoints that the run saves; None for none.
    """

    def __init__(self, config: Config) -> None:
        assert config.workdir is not None
        self.config, self.path = config, config.workdir
        self.checkpoints = config.checkpoints.save if config.data.input_path else None
        self._lock = RunLock()
        self._at_end: list[Callable[[Ending, Path | None], None]] = []

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)
        goes_on = isinstance(error, HostsChangedError | RankLostError)  # an elastic run, with other ranks
        if error is not None and self._lock.has_begun and not goes_on:
            self._note_ending(error)
        self._lock.__exit__(kind, error, trace)

    def at_end(self, finish: Callable[[Ending, Path | None], None]) -> None:
        """Have a function called at the end of the `with` statement.

        Args:
            finish: is given how the run has ended, and its report; None where it has none.
        """
        self._at_end.append(finish)

    def _end(self, error: BaseException | None) -> None:
        ending: Ending = "finished" if error is None else "stopped" if _is_stopped(error) else "failed"
        report = self.path / REPORT
        for finish in self._at_end:
            with contextlib.suppress(OSError):  # all was written before; the lock must be released
                finish(ending, report if error is None and report.exists() else None)

    def open(self, kind: Kind, options: Options) -> dict[str, Any] | None:
        """Lock the folder and look at what it holds. Rank 0 alone calls this.

        Returns:
            The attributes of `Resumed` as JSON; None for a new run.

        Raises:
            UserError: the folder cannot be used, or holds a run that the options do not let this one replace or resume.
        """
        try:
            str(self.path).encode()
            return self._open(kind, options)
        except UnicodeEncodeError:  # TensorBoard's files could not be written there
            raise UserError(f"{str(self.path)!a}: expected a name in UTF-8; name another --workdir") from None
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{error.filename}: is a file, not a folder; name another --workdir") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot write the run folder: {error.strerror or error}") from None

    def _open(self, kind: Kind, options: Options) -> dict[str, Any] | None:
        self._lock.take(self.path)
        self._refuse_foreign_files()
        if options.resume and self.config.data.input_path:
            self._refuse_lost_checkpoints(self.checkpoints)
        if self.checkpoints:
            self._lock.take(self.checkpoints)  # runs in other folders may name it too
            clean_up(self.checkpoints)  # what a killed process has left
        saved = self.config.checkpoints.save
        if self.config.data.input_path is None:
            self._refuse_evaluation(list_checkpoints(saved) if saved else [], options)
        elif not options.resume:
            self._refuse_used(kind, list_checkpoints(saved) if saved else [], options.overwrite)
        elif saved and (newest := find_newest_intact(saved, self.config.num_epochs)):
            header, progress = read_header(newest, allowed=(kind,)), read_progress(newest)
            found = {"path": str(newest), "header": header.model_dump(), "progress": progress.model_dump()}
            return {**found, "changes": self._changed_keys(progress.config, options.allowed_changes)}
        else:
            log.info(f"There is nothing to resume in {display_path(self.path)}: starting from the beginning")
        log.info(f"Run folder: {display_path(self.path)}")
        return None

    def begin(self, resumed: Path | None, bad: Sequence[BadImage], communication: Mapping[str, str]) -> None:
        """Remove the files of an earlier run, unless it is resumed, and write what this one is. Rank 0 calls this.

        Call it once nothing can be refused any more. An evaluation saves no checkpoints, so it removes none.

        Args:
            resumed: the checkpoint that the run resumes from.
            bad: the images that were found to be bad before training.
            communication: of several ranks, as `World` describes it; empty for a single process.
        """
        self._lock.begin()
        begin_bad_images(self.path, resumed=resumed is not None, checked=bad)
        saved = list_checkpoints(self.checkpoints) if self.checkpoints else []
        if resumed is None:
            for path in saved:
                remove_folder(path)
            for name in (METRICS_LOG, TRACKERS):
                (self.path / name).unlink(missing_ok=True)
            for name in (FIGURES, TENSORBOARD, NONFINITE_BATCHES):
                shutil.rmtree(self.path / name, ignore_errors=True)
        else:
            for path in saved:
                if epoch_and_step(path) > epoch_and_step(resumed) and find_damage(path):
                    log.warning(f"Damaged: {set_aside(path)}")
        for name in (SUMMARY, REPORT, COMMUNICATION, ENDING):  # a run has no result before its end
            (self.path / name).unlink(missing_ok=True)
        environment: dict[str, Any] = {
            **versions(),
            "seed": self.config.seed,
            "started": now(),
            "command": command_line(),
        }
        if (self.path.parent / PROJECT).is_file():
            environment[IMAGES] = describe_images(self.config)
        write_json(self.path / ENVIRONMENT, environment)
        if communication:
            write_json(self.path / COMMUNICATION, communication)
        write_text(self.path / RESOLVED_CONFIG, dump_config(self.config))

    def _note_ending(self, error: BaseException) -> None:
        """Write why the run ended before its end. A process that is killed writes nothing."""
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else first_line(error)
        ending = {"state": "stopped" if _is_stopped(error) else "failed", "reason": reason}
        with contextlib.suppress(OSError):  # the disk may be full: the error itself is reported
            write_json(self.path / ENDING, ending)

    def _changed_keys(self, before: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
        """Return the keys that differ from the configuration with which the checkpoint was saved.

        Raises:
            UserError: a key has changed that `--allow-change` does not name.
        """
        config = self.config
        if unknown := [name for name in allowed if not (has_key(as_values(config), name) or has_key(before, name))]:
            raise UserError(f"--allow-change {unknown[0]}: there is no such key")
        changed = differences(before, config) if before else {}
        lines = {key: f"{key}: {before} -> {now}" for key, (before, now) in changed.items()}
        # The folder's configuration has what an earlier start was allowed to change without saving a checkpoint.
        written = differences(read_values(self.path / RESOLVED_CONFIG), config)
        refused = [
            key
            for key in lines
            if key in written and not any(key == name or key.startswith(f"{name}.") for name in allowed)
        ]
        if refused:
            flags = " ".join(f"--allow-change {key}" for key in refused)
            head = f"--resume: the configuration is not that of the run in {self.path}:"
            remedy = f"Restore these keys, name another --workdir, or resume with the new values: {flags}"
            raise UserError("\n".join([head, *(f"  {lines[key]}" for key in refused), remedy]))
        for line in lines.values():
            log.info(f"Changed since the run was stopped: {line}")
        return list(lines)

    def _refuse_lost_checkpoints(self, saved: Path | None) -> None:
        """Raise UserError where there is nothing to resume from, but a result that a new start would delete.

        A run that was killed before its first checkpoint has the folder for them, and no result.
        """
        if (saved and list_checkpoints(saved)) or not (self.path / RESOLVED_CONFIG).exists():
            return
        is_finished = (self.path / SUMMARY).exists()
        if saved is None and is_finished:
            raise UserError(
                f"--resume: {self.path} holds a finished run, and checkpoints.save is null, so there is nothing to "
                "resume from; start again with --overwrite"
            )
        if saved and (is_finished or not (saved / LOCK).exists()):
            raise UserError(
                f"--resume: {self.path} holds a run, but {saved} holds none of its checkpoints; bring them back, or "
                "start again with --overwrite"
            )

    def _refuse_foreign_files(self) -> None:
        """Raise UserError where the folder has files of a run's names but no run: they are somebody else's."""
        names = (METRICS_LOG, SUMMARY, REPORT, FIGURES, TENSORBOARD)
        found = [name for name in names if (self.path / name).exists()]
        if found and not (self.path / RESOLVED_CONFIG).exists():
            raise UserError(
                f"{self.path} holds {found[0]}, but no run of this program; name another folder with --workdir"
            )

    def _used_outputs(self, phases: Sequence[str]) -> list[Path]:
        """Return the records and text logs that an earlier run has written; the logs may lie elsewhere."""
        outfile = self.config.outfile
        logs = [outfile_of(outfile, phase) for phase in phases] if outfile else []
        return [path for path in (self.path / METRICS_LOG, *logs) if path.exists()]

    def _refuse_used(self, kind: Kind, checkpoints: Sequence[Path], overwrite: bool) -> None:
        """Raise UserError where a new training would replace an earlier one unasked, or one of another kind."""
        saved, load = self.config.checkpoints.save, self.config.checkpoints.load
        outputs = self._used_outputs(("train", "test"))
        if not checkpoints and not outputs:
            return
        used = saved if checkpoints else self.path if outputs[0].name == METRICS_LOG else outputs[0]
        inside = used is not None and used.is_relative_to(self.path)
        another = f"name another folder with {'--workdir' if inside else '--workdir and checkpoints.save'}"
        for other in filter(None, map(_kind_of, checkpoints)):
            if other != kind:
                raise UserError(f"{used} holds the checkpoints of {_NAMES[other]}, another kind of run; {another}")
        if not overwrite:
            raise UserError(
                f"{used} already holds a run; add --resume to continue it, --overwrite to start again, or {another}"
            )
        if load and saved and saved in find_weights(load, "checkpoints.load").path.parents:
            raise UserError(f"--overwrite would delete {load}, which checkpoints.load names; use another --workdir")

    def _refuse_evaluation(self, checkpoints: Sequence[Path], options: Options) -> None:
        """Raise UserError where an evaluation would replace a training, or another evaluation unasked."""
        if options.resume:
            raise UserError("--resume continues a training; without data.input_path there is none")
        if any(self.path in path.parents for path in checkpoints):
            raise UserError(f"{self.path} holds the run of a training; name another --workdir for the evaluation")
        if (outputs := self._used_outputs(("test",))) and not options.overwrite:
            raise UserError(f"{outputs[0]} already exists; add --overwrite, or name another folder with --workdir")


def _is_stopped(error: BaseException) -> bool:
    """Return whether a run has ended because it was asked to, or continues with other ranks."""
    return isinstance(error, StoppedError | KeyboardInterrupt | HostsChangedError | RankLostError)


def _kind_of(path: Path) -> Kind | None:
    """Return the kind of a checkpoint; None where it is too damaged to tell."""
    try:
        return read_header(path).kind
    except UserError:
        return None
