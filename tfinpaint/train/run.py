"""A run: its folder, its images, its start from weights or from where it stopped, and what it does at epoch ends."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import tensorflow as tf

from tfinpaint import checkpoint, transfer
from tfinpaint.checkpoint import Header, Kind
from tfinpaint.config import Config
from tfinpaint.config_file import dump_config
from tfinpaint.data import pipeline
from tfinpaint.data.pipeline import Images, Shard
from tfinpaint.data.sources import Listing, find_unreadable
from tfinpaint.dist import World
from tfinpaint.errors import UserError
from tfinpaint.files import write_json, write_text
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.inpaint import build_inpainter
from tfinpaint.report.metrics import METRICS, TENSORBOARD, MetricsLog
from tfinpaint.report.page import Section, summary_table, write_page
from tfinpaint.train.loop import Trainer

log = logging.getLogger(__name__)

RESOLVED_CONFIG = "config.resolved.yaml"
SUMMARY = "summary.json"
REPORT = "report.html"
FIGURES = "figures"


@dataclass(frozen=True)
class Run:
    """One command's run.

    Attributes:
        resumed: header of the checkpoint that the run goes on from; None for a new run.
    """

    config: Config
    world: World
    kind: Kind
    resumed: Header | None

    @property
    def folder(self) -> Path:
        assert self.config.workdir is not None
        return self.config.workdir

    @property
    def first_epoch(self) -> int:
        return self.resumed.epoch + 1 if self.resumed else 1

    @property
    def first_step(self) -> int:
        return self.resumed.step if self.resumed else 0


def open_run(config: Config, world: World, kind: Kind, *, resume: bool, overwrite: bool) -> Run:
    """Make the run folder, or find where the run in it stopped; set precision and seeds.

    Raises:
        UserError: the folder holds a run and neither `resume` nor `overwrite` is set, or cannot be written.
    """
    found = world.from_first(lambda: _open_folder(config, kind, resume, overwrite))
    keras.config.set_dtype_policy(config.precision)
    keras.utils.set_random_seed(config.seed)
    run = Run(config, world, kind, Header.model_validate(found) if found else None)
    if run.resumed:
        log.info(f"Going on after epoch {run.resumed.epoch} of {config.num_epochs} in {run.folder}")
    else:
        log.info(f"Run folder: {run.folder}")
    return run


def _open_folder(config: Config, kind: Kind, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    folder, saved = config.workdir, config.checkpoints.save
    assert folder is not None
    header = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _lock(folder)
        checkpoints = checkpoint.list_checkpoints(saved) if saved else []
        if not resume and (checkpoints or (folder / METRICS).exists()):
            if not overwrite:
                raise UserError(
                    f"{folder} already holds a run; add --resume to go on with it, --overwrite to start it anew, "
                    "or name another folder with --workdir"
                )
            load = config.checkpoints.load
            if load and saved and saved in load.parents:
                raise UserError(f"--overwrite would delete {load}, which checkpoints.load names; use another --workdir")
            if any(checkpoint.read_header(path).kind != kind for path in checkpoints):
                raise UserError(f"{saved} holds the checkpoints of another kind of run; name another --workdir")
        if resume and checkpoints:
            header = checkpoint.read_header(checkpoints[-1], allowed=(kind,))
    except OSError as error:
        raise UserError(f"{folder}: cannot write the run folder: {error.strerror or error}") from None
    return header.model_dump() if header else None


_held_locks: list[IO[str]] = []  # open until the process ends, however it ends


def _lock(folder: Path) -> None:
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process is training there; name another --workdir") from None
    _held_locks.append(lock)


def begin(run: Run) -> None:
    """Remove what an earlier run left, unless it is resumed, and write the configuration. Rank 0 calls this.

    Not before everything that may still be refused has been looked at.
    """
    if not run.resumed:
        saved = run.config.checkpoints.save
        checkpoint.remove(checkpoint.list_checkpoints(saved) if saved else [])
        for name in (METRICS, SUMMARY, REPORT):
            (run.folder / name).unlink(missing_ok=True)
        for name in (FIGURES, TENSORBOARD):
            shutil.rmtree(run.folder / name, ignore_errors=True)
    write_text(run.folder / RESOLVED_CONFIG, dump_config(run.config))


def check_same_run(run: Run, steps: int, classes: tuple[str, ...] = ()) -> None:
    """A resumed run must see its data as before.

    Raises:
        UserError: the classes, the batch size or the steps per epoch have changed.
    """
    if run.resumed is None:
        return
    now = describe(run, steps=steps, classes=classes)
    for name in ("classes", "batch_size", "steps_per_epoch", "encoder", "encoder_output", "height", "width"):
        before, after = getattr(run.resumed, name), getattr(now, name)
        if before != after:
            raise UserError(
                f"--resume: {name} was {before} and is now {after}; restore it, or start anew in another --workdir"
            )


def open_images(run: Run, listing: Listing, batch_size: int) -> Images:
    """Check every image once (each rank its share), leave the bad ones out, and make this rank's share readable.

    Raises:
        UserError: more bad images than `data.max_bad_images`, too few images, or ranks that see different folders.
    """
    world, size = run.world, run.config.image_size
    fingerprint = hashlib.sha256("\n".join(listing.paths).encode()).hexdigest()
    if len(set(world.gather(fingerprint))) > 1:
        raise UserError(f"{listing.root}: the ranks see different files there; every host needs the same images")
    shard = Shard(world.rank, world.size)
    found = find_unreadable(listing, shard.indices(len(listing)), *size)
    bad = {int(i): reason for part in world.gather(found) for i, reason in part.items()}
    _report_bad(run, listing, bad)
    good = listing.select([i for i in range(len(listing)) if i not in bad])
    classes = f" in {len(good.classes)} classes" if good.classes else ""
    stray = f", {len(good.stray)} other files passed over" if good.stray else ""
    log.info(f"{good.root}: {len(good)} images{classes}{stray}")
    if len(good) < batch_size:
        raise UserError(f"{good.root}: {len(good)} images are fewer than a batch; lower data.batch_size {batch_size}")
    return Images.open(good, shard, size, run.config.data.preload)


def _report_bad(run: Run, listing: Listing, bad: dict[int, str]) -> None:
    limit = run.config.data.max_bad_images
    lines = [f"{listing.absolute(i)}: {bad[i]}" for i in sorted(bad)]
    if len(bad) > limit:
        more = [f"... and {len(bad) - 20} more"] if len(bad) > 20 else []
        raise UserError(
            "\n".join(
                [
                    f"{len(bad)} unreadable images, data.max_bad_images allows {limit}; mend or remove them:",
                    *lines[:20],
                    *more,
                ]
            )
        )
    for line in lines:
        log.warning(f"Skipping unreadable image {line}")
    if bad:
        log.warning(f"Skipped {len(bad)} unreadable images of at most {limit}")


def describe(run: Run, *, steps: int, epoch: int = 0, classes: tuple[str, ...] = ()) -> Header:
    """The header of this run's model after an epoch of `steps` steps each."""
    model = run.config.model
    height, width = run.config.image_size
    return Header(
        kind=run.kind,
        epoch=epoch,
        step=epoch * steps,
        encoder=model.encoder,
        encoder_output=model.encoder_output,
        height=height,
        width=width,
        classes=classes,
        batch_size=run.config.data.batch_size,
        steps_per_epoch=steps,
    )


def build_model(header: Header) -> keras.Model:
    """The model that a header describes, with random weights."""
    encoder = build_encoder(header.encoder, header.encoder_output, header.height, header.width)
    if header.kind == "inpainter":
        return build_inpainter(encoder)
    return build_classifier(encoder, len(header.classes)) if header.kind == "classifier" else encoder


def load_by_name(run: Run, path: Path, model: keras.Model) -> list[str]:
    """Fill the layers of `model` that the file also has, on rank 0; `Trainer.synchronise` gives them to the others.

    Returns:
        The transfer's report, line by line.
    """

    def load() -> list[str]:
        source_file = checkpoint.find(path)
        header = checkpoint.read_header(source_file, allowed=("inpainter", "encoder"))
        if header.encoder != run.config.model.encoder:
            raise UserError(
                f"{source_file}: its encoder is {header.encoder}, model.encoder is {run.config.model.encoder}"
            )
        source = build_model(header)
        checkpoint.load_weights(source_file, source)
        plan = transfer.plan_transfer(source, model)
        transfer.copy_weights(plan, source, model)
        return [f"Loading {header.kind} weights from {source_file}", *plan.report(source_file.name)]

    lines = run.world.from_first(load)
    for line in lines:
        log.info(line)
    return lines


def make_trainer(run: Run, model: keras.Model, optimizer: keras.Optimizer, loss: Any, metrics: Any = None) -> Trainer:
    """A trainer whose ranks all start from the same weights: random, transferred, or those of the resumed run."""
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    jit_compile = on_gpu if run.config.jit_compile == "auto" else run.config.jit_compile
    trainer = Trainer(model, optimizer, loss, metrics, world=run.world, jit_compile=jit_compile)
    if run.resumed:
        saved = run.config.checkpoints.save
        assert saved is not None
        name = f"model_checkpoint_{run.resumed.epoch}"
        run.world.from_first(lambda: checkpoint.restore(saved / name, model, optimizer))
    trainer.synchronise()
    return trainer


def steps_per_epoch(run: Run, images: Images) -> int:
    """What the configuration says, or one pass over the data."""
    return run.config.steps_per_epoch or pipeline.steps_per_pass(len(images.listing), run.config.data.batch_size)


def write_summary(run: Run, model: keras.Model, metrics: MetricsLog, figures: dict[str, Any]) -> dict[str, Any]:
    """summary.json: the given final figures and those that every run has."""
    rates = [record["images_per_second"] for record in metrics.records if record["phase"] == "train"]
    summary = {
        **figures,
        "epochs": run.config.num_epochs,
        "images_per_second": statistics.median(rates) if rates else None,
        "seconds": sum(record["seconds"] for record in metrics.records),
        "world_size": run.world.size,
        "parameters": model.count_params(),
        "trainable_parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
    }
    write_json(run.folder / SUMMARY, summary)
    return summary


def write_report(run: Run, title: str, summary: Mapping[str, Any], sections: Sequence[Section]) -> None:
    """report.html: the summary, the given sections, the curves' figures and the configuration."""
    path = run.folder / REPORT
    result = Section("Result", table=summary_table(summary))
    configuration = Section("Configuration", text=(run.folder / RESOLVED_CONFIG).read_text())
    write_page(path, title, [result, *sections, configuration])
    log.info(f"Report: {path}")
