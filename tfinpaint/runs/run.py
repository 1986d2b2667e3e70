"""A run: its folder, where it begins, and what it leaves at its end."""

from __future__ import annotations

import logging
import math
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.checkpoint import find
from tfinpaint.checkpoint.find import epoch_and_step, find_best, find_checkpoint
from tfinpaint.checkpoint.header import Header, Kind, SavedProgress
from tfinpaint.checkpoint.reader import read_header, read_progress
from tfinpaint.checkpoint.store import find_newest_intact
from tfinpaint.config.diff import as_values, differences, has_key
from tfinpaint.config.loader import dump_config, read_values
from tfinpaint.config.schema import Config
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import (
    BEST,
    FIGURES,
    LOCK,
    METRICS_LOG,
    NONFINITE_BATCHES,
    REPORT,
    RESOLVED_CONFIG,
    SUMMARY,
    TENSORBOARD,
)
from tfinpaint.models.keras_json.parse import read_network
from tfinpaint.models.layer_names import renaming_note
from tfinpaint.report.html import Section, summary_table, write_page
from tfinpaint.report.metrics_log import MetricsLog, outfile_of
from tfinpaint.runs.bad_images import BadImage, begin_bad_images
from tfinpaint.runs.lock import RunLock
from tfinpaint.storage.atomic import clean_up, find_damage, remove_folder, set_aside, write_json, write_text
from tfinpaint.system.paths import display_path
from tfinpaint.train.schedules import LrScaling

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that a run goes on from.

    Attributes:
        changes: keys of the configuration that have changed since, as was allowed.
    """

    path: Path
    header: Header
    progress: SavedProgress
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One command's run.

    Attributes:
        resumed: the checkpoint that the run goes on from; None for a new run.
        network: definition of the network of `layers`; None for that of the `model` section.
        claim: this process's on the folders that the run writes into.
        bad: the images that were found to be bad while the run was opened.
        transferred: what was said of the weights that the run began with, line by line; [] for random ones.
    """

    config: Config
    world: World
    kind: Kind
    resumed: Resumed | None
    network: dict[str, Any] | None
    claim: RunLock = field(default_factory=RunLock)
    bad: list[BadImage] = field(default_factory=list)
    transferred: list[str] = field(default_factory=list)

    @property
    def network_name(self) -> str:
        """The network's file, or the key that holds it, for messages."""
        return str(self.config.layers) if isinstance(self.config.layers, Path) else "layers"

    @property
    def folder(self) -> Path:
        assert self.config.workdir is not None
        return self.config.workdir

    @property
    def batch_size(self) -> int:
        """Of training, images over all ranks."""
        return self.config.data.batch_size * (self.world.size if self.config.data.batch_size_per_rank else 1)

    @property
    def test_batch_size(self) -> int:
        """Of evaluation, images over all ranks."""
        return self.config.data.test_batch_size * (self.world.size if self.config.data.batch_size_per_rank else 1)

    @property
    def lr_scaling(self) -> LrScaling | None:
        """Of every learning rate of this run; None for none."""
        settings, ranks = self.config.distributed, self.world.size
        if settings.lr_scaling is None or ranks == 1:
            return None
        return LrScaling(ranks if settings.lr_scaling == "linear" else math.sqrt(ranks), settings.lr_warmup_epochs)

    @property
    def first_epoch(self) -> int:
        return self.resumed.header.epoch + 1 if self.resumed else 1

    @property
    def is_evaluated_again(self) -> bool:
        """True where nothing is left to train, and the last evaluation is missing or was one of other settings."""
        if self.resumed is None or self.first_epoch <= self.config.num_epochs:
            return False
        last = ("test", self.resumed.header.epoch)
        evaluated = any((record["phase"], record["epoch"]) == last for record in self.resumed.progress.records)
        return bool(self.resumed.changes) or not evaluated

    def first_step(self, steps: int) -> int:
        """Steps done, where an epoch has `steps`: the same share of the epoch under way, should that have changed."""
        if self.resumed is None:
            return 0
        header = self.resumed.header
        return header.epoch * steps + header.step_in_epoch * steps // max(header.steps_per_epoch, 1)


@contextmanager
def open_run(
    config: Config,
    world: World,
    kind: Kind,
    *,
    resume: bool,
    overwrite: bool,
    allowed_changes: Sequence[str] = (),
) -> Iterator[Run]:
    """Claim the run folder, or find where the run in it stopped; set precision, determinism and seeds.

    Until `begin` is called nothing in the folders changes, so that a start that is refused leaves them as they were. At
    the end of the `with` they are free for the next run, in this process too.

    Args:
        allowed_changes: keys of the configuration, or sections, that a resumed run may have changed.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is set, or cannot be written; or the
            network file cannot be used.
    """
    network = read_network(config.layers) if config.layers is not None else None
    policy = keras.config.dtype_policy()
    with RunLock() as claim:
        found = world.run_on_rank0(lambda: _open_folder(claim, config, kind, resume, overwrite, allowed_changes))
        keras.config.set_dtype_policy(config.precision)
        keras.utils.set_random_seed(config.seed)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        if network is not None and (note := renaming_note([layer["name"] for layer in network["layers"]])):
            log.info(note)
        try:
            resumed = _as_resumed(config, found) if found else None
            transferred = list(resumed.progress.transferred) if resumed else []
            yield Run(config, world, kind, resumed, network, claim, transferred=transferred)
        finally:
            keras.config.set_dtype_policy(policy)


def _as_resumed(config: Config, found: dict[str, Any]) -> Resumed:
    """Return what `_open_folder` has found, and log where the run goes on."""
    resumed = Resumed(
        Path(found["path"]),
        Header.model_validate(found["header"]),
        SavedProgress.model_validate(found["progress"]),
        tuple(found["changes"]),
    )
    step = resumed.header.step_in_epoch
    within = f", and {step} of the {resumed.header.steps_per_epoch} steps of the next," if step else ""
    done = "" if resumed.header.epoch < config.num_epochs else "; nothing is left to train"
    folder = config.workdir
    assert folder is not None
    log.info(
        f"Going on after epoch {resumed.header.epoch}{within} of {config.num_epochs} in {display_path(folder)}{done}"
    )
    return resumed


def _open_folder(
    claim: RunLock, config: Config, kind: Kind, resume: bool, overwrite: bool, allowed_changes: Sequence[str]
) -> dict[str, Any] | None:
    """What `Resumed` holds, as JSON can carry it; None for a new run."""
    folder, saved, trains = config.workdir, config.checkpoints.save, config.data.input_path is not None
    assert folder is not None
    found = None
    try:
        str(folder).encode()
        claim.take(folder)
        _refuse_foreign(folder)
        if trains and saved:
            if resume:
                _refuse_lost(folder, saved)
            claim.take(saved)  # runs in other folders may name it too
            clean_up(saved)  # what a killed process has left, before it is looked at
        checkpoints = find.list_checkpoints(saved) if saved else []
        if not trains:
            _refuse_evaluation(config, checkpoints, resume, overwrite)
        elif not resume:
            _refuse_used(config, kind, checkpoints, overwrite)
        elif saved and (newest := find_newest_intact(saved, config.num_epochs)):
            header, progress = read_header(newest, allowed=(kind,)), read_progress(newest)
            found = {"path": str(newest), "header": header.model_dump(), "progress": progress.model_dump()}
            found["changes"] = _changes(config, progress.config, allowed_changes)
        else:
            log.info(f"There is nothing to resume in {display_path(folder)}: starting anew")
        if not found:
            log.info(f"Run folder: {display_path(folder)}")
    except UnicodeEncodeError:  # which TensorBoard's files could not be written into
        raise UserError(f"{str(folder)!a}: expected a name in UTF-8; name another --workdir") from None
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{error.filename}: is a file, not a folder; name another --workdir") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot write the run folder: {error.strerror or error}") from None
    return found


def _changes(config: Config, before: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
    """The keys that differ from the configuration with which the checkpoint was made.

    Raises:
        UserError: there are some that nobody has allowed.
    """
    assert config.workdir is not None
    if unknown := [name for name in allowed if not (has_key(as_values(config), name) or has_key(before, name))]:
        raise UserError(f"--allow-change {unknown[0]}: there is no such key")
    changed = differences(before, config) if before else {}
    lines = {key: f"{key}: {before} -> {now}" for key, (before, now) in changed.items()}
    # What an earlier start was allowed to change, and has not come to save yet.
    written = differences(read_values(config.workdir / RESOLVED_CONFIG), config)
    asked = [key for key in lines if key in written]
    refused = [key for key in asked if not any(key == name or key.startswith(f"{name}.") for name in allowed)]
    if refused:
        flags = " ".join(f"--allow-change {key}" for key in refused)
        raise UserError(
            "\n".join(
                [
                    f"--resume: the configuration is not that of the run in {config.workdir}:",
                    *(f"  {lines[key]}" for key in refused),
                    f"Restore these, name another --workdir, or go on with the new values: {flags}",
                ]
            )
        )
    for line in lines.values():
        log.info(f"Changed since the run was stopped: {line}")
    return list(lines)


def _refuse_lost(folder: Path, saved: Path) -> None:
    """To start anew where a run was is not to go on with it.

    One that was killed before its first checkpoint has neither; but then the folder for them is there, and no result.
    """
    if find.list_checkpoints(saved) or not (folder / RESOLVED_CONFIG).exists():
        return
    if (folder / SUMMARY).exists() or not (saved / LOCK).exists():
        raise UserError(
            f"--resume: {folder} holds a run, and {saved} none of its checkpoints; bring them back, or start anew with "
            "--overwrite"
        )


def _refuse_foreign(folder: Path) -> None:
    """A folder that holds files of our names, but no run, is somebody else's."""
    found = [name for name in (METRICS_LOG, SUMMARY, REPORT, FIGURES, TENSORBOARD) if (folder / name).exists()]
    if found and not (folder / RESOLVED_CONFIG).exists():
        raise UserError(f"{folder} holds {found[0]}, but no run of this program; name another folder with --workdir")


def _used_outputs(config: Config, phases: Sequence[str]) -> list[Path]:
    """What an earlier run has written: its records, and its text logs, which may lie elsewhere."""
    assert config.workdir is not None
    logs = [outfile_of(config.outfile, phase) for phase in phases] if config.outfile else []
    return [path for path in (config.workdir / METRICS_LOG, *logs) if path.exists()]


def _refuse_used(config: Config, kind: Kind, checkpoints: Sequence[Path], overwrite: bool) -> None:
    """A new training destroys an earlier one only where it was asked to, and then only one of its own kind."""
    folder, saved, load = config.workdir, config.checkpoints.save, config.checkpoints.load
    outputs = _used_outputs(config, ("train", "test"))
    if not checkpoints and not outputs:
        return
    if not overwrite:
        used = saved if checkpoints else folder if outputs[0].name == METRICS_LOG else outputs[0]
        other = "--workdir" if used and folder and used.is_relative_to(folder) else "--workdir and checkpoints.save"
        raise UserError(
            f"{used} already holds a run; add --resume to go on with it, --overwrite to start it anew, or name another "
            f"folder with {other}"
        )
    if load and saved and saved in find_checkpoint(load, "checkpoints.load").path.parents:
        raise UserError(f"--overwrite would delete {load}, which checkpoints.load names; use another --workdir")
    if any(_kind_of(path) not in (kind, None) for path in checkpoints):
        raise UserError(f"{saved} holds the checkpoints of another kind of run; name another --workdir")


def _kind_of(path: Path) -> Kind | None:
    """Of a checkpoint; None where it is too damaged to tell."""
    try:
        return read_header(path).kind
    except UserError:
        return None


def _refuse_evaluation(config: Config, checkpoints: Sequence[Path], resume: bool, overwrite: bool) -> None:
    """An evaluation may replace an evaluation; never the records of a training."""
    if resume:
        raise UserError("--resume goes on with a training; without data.input_path there is none")
    if any(config.workdir in path.parents for path in checkpoints):
        raise UserError(f"{config.workdir} holds the run of a training; name another --workdir for the evaluation")
    if (outputs := _used_outputs(config, ("test",))) and not overwrite:
        raise UserError(f"{outputs[0]} is there already; add --overwrite, or name another folder with --workdir")


def begin_run(run: Run) -> None:
    """Remove what an earlier run left, unless it is resumed, and write the configuration. Rank 0 calls this.

    An evaluation saves no checkpoints, so it removes none.

    Not before everything that may still be refused has been looked at.
    """
    run.claim.begin()
    begin_bad_images(run.folder, resumed=run.resumed is not None, checked=run.bad)
    if not run.resumed:
        saved = run.config.checkpoints.save if run.config.data.input_path else None
        for path in find.list_checkpoints(saved) if saved else []:
            remove_folder(path)
        (run.folder / METRICS_LOG).unlink(missing_ok=True)
        for name in (FIGURES, TENSORBOARD, NONFINITE_BATCHES):
            shutil.rmtree(run.folder / name, ignore_errors=True)
    elif run.config.checkpoints.save:
        for path in find.list_checkpoints(run.config.checkpoints.save):
            if epoch_and_step(path) > epoch_and_step(run.resumed.path) and find_damage(path):
                log.warning(f"Damaged: {set_aside(path)}")
    # Until the run is at its end, it has no result.
    for name in (SUMMARY, REPORT):
        (run.folder / name).unlink(missing_ok=True)
    write_text(run.folder / RESOLVED_CONFIG, dump_config(run.config))


def write_summary(run: Run, model: keras.Model, metrics: MetricsLog, figures: dict[str, Any]) -> dict[str, Any]:
    """Write summary.json: the given final figures and those that every run has; log which checkpoint is the best."""
    rates = [record["images_per_second"] for record in metrics.records if record["phase"] == "train"]
    summary = {
        **figures,
        **_best_checkpoint(run),
        "epochs": run.config.num_epochs if run.config.data.input_path else 0,
        "images_per_second": statistics.median(rates) if rates else None,
        "seconds": sum(record["seconds"] for record in metrics.records),
        "world_size": run.world.size,
        "parameters": model.count_params(),
        "trainable_parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
    }
    write_json(run.folder / SUMMARY, summary)
    return summary


def _best_checkpoint(run: Run) -> dict[str, Any]:
    """Return what a summary says of the best checkpoint; {} where none is known to be."""
    saved = run.config.checkpoints.save if run.config.data.input_path else None
    best = find_best(saved) if saved else None
    if best is None:
        return {}
    inside = best.path.is_relative_to(run.folder)  # then it stays true when the folder is moved
    place = best.path.relative_to(run.folder) if inside else best.path
    loss = "" if best.loss is None else f" ({best.loss:.4g})"
    log.info(f"Best checkpoint: {best.path.name}, {find.BEST_BY}{loss}; {display_path(run.folder / BEST)} names it")
    figures = {"best_checkpoint": str(place), "best_by": find.BEST_BY}
    return {**figures, "best_epoch": best.epoch, "best_test_loss": best.loss}


def write_report(run: Run, title: str, summary: Mapping[str, Any], sections: Sequence[Section]) -> None:
    """report.html: the summary, the given sections, the curves' figures and the configuration."""
    path = run.folder / REPORT
    result = Section("Result", table=summary_table(summary))
    configuration = Section("Configuration", text=(run.folder / RESOLVED_CONFIG).read_text("utf-8"))
    write_page(path, title, [result, *sections, configuration])
    log.info(f"Report: {display_path(path)}")
