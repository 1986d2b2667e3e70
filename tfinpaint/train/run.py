"""A run: its folder, its images, its start from weights or from where it stopped, and what it does at epoch ends."""

from __future__ import annotations

import fcntl
import hashlib
import json
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

from tfinpaint import checkpoint, legacy_weights, transfer
from tfinpaint.checkpoint import KINDS, Header, Kind
from tfinpaint.config import Config
from tfinpaint.config_file import dump_config
from tfinpaint.data import pipeline
from tfinpaint.data.pipeline import Batch, Images, Recipe, Shard
from tfinpaint.data.sources import Listing, find_unreadable
from tfinpaint.dist import World
from tfinpaint.errors import UserError
from tfinpaint.files import write_json, write_text
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.inpaint import build_inpainter
from tfinpaint.models.losses import PerExample, build_objective
from tfinpaint.models.network import build_network
from tfinpaint.models.network import output_activation as network_output_activation
from tfinpaint.models.network_file import read_network
from tfinpaint.report.metrics import METRICS, TENSORBOARD, MetricsLog
from tfinpaint.report.page import Section, summary_table, write_page
from tfinpaint.train.loop import Trainer
from tfinpaint.transfer import LayerWeights

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
        network: definition of the network of `layers`; None for that of the `model` section.
    """

    config: Config
    world: World
    kind: Kind
    resumed: Header | None
    network: dict[str, Any] | None

    @property
    def network_name(self) -> str:
        """The network's file, or the key that holds it, for messages."""
        return str(self.config.layers) if isinstance(self.config.layers, Path) else "layers"

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
        UserError: the folder holds a run and neither `resume` nor `overwrite` is set, or cannot be written; or the
            network file cannot be used.
    """
    network = read_network(config.layers) if config.layers is not None else None
    found = world.from_first(lambda: _open_folder(config, kind, resume, overwrite))
    keras.config.set_dtype_policy(config.precision)
    keras.utils.set_random_seed(config.seed)
    run = Run(config, world, kind, Header.model_validate(found) if found else None, network)
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
        if resume and config.data.input_path is None:
            raise UserError("--resume goes on with a training; without data.input_path there is none")
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
    for name in Header.model_fields:
        before, after = getattr(run.resumed, name), getattr(now, name)
        if name in ("kind", "epoch", "step"):
            continue
        if before != after:
            raise UserError(
                f"--resume: {name} was {before} and is now {after}; restore it, or start anew in another --workdir"
            )


@dataclass(frozen=True)
class DataSet:
    """A rank's share of the examples of training or of evaluation, and how they become batches.

    Attributes:
        targets: images to compare outputs with; None for labels, targets cut from the inputs, or none at all.
    """

    config: Config
    images: Images
    targets: Images | None
    recipe: Recipe

    def __len__(self) -> int:
        return len(self.images.listing)

    @property
    def has_targets(self) -> bool:
        """True where there is something to score outputs with."""
        return self.recipe.has_targets

    def batches_from(self, step: int) -> tf.data.Dataset:
        """Endless training batches from a global step on."""
        config = self.config
        return pipeline.train_batches(
            self.images, self.targets, batch_size=config.data.batch_size, seed=config.seed, first_step=step,
            prepare=self.recipe.prepare,
        )  # fmt: skip

    def evaluation_batches(self) -> tf.data.Dataset:
        """Every example of this rank's share once, in order."""
        return pipeline.evaluation_batches(
            self.images, self.targets, batch_size=self.config.data.test_batch_size, seed=self.config.seed,
            prepare=self.recipe.prepare,
        )  # fmt: skip

    def sample(self, count: int) -> Batch:
        """A few examples spread over the whole set, as one batch, always the same."""
        chosen = [len(self) * i // count for i in range(min(count, len(self)))]
        targets = self.targets.select(chosen) if self.targets else None
        return next(
            iter(
                pipeline.evaluation_batches(
                    self.images.select(chosen), targets, batch_size=count, seed=self.config.seed,
                    prepare=self.recipe.prepare,
                )
            )
        )  # fmt: skip


def open_data(run: Run, recipe: Recipe, listing: Listing, targets: Listing | None = None, *, minimum: int) -> DataSet:
    """Check every image once (each rank its share), leave the bad ones out, and make this rank's share readable.

    Args:
        targets: the partners of the listing's images, in its order.
        minimum: number of good images that there must be.

    Raises:
        UserError: more bad images than `data.max_bad_images`, too few images, or ranks that see different folders.
    """
    world = run.world
    shard = Shard(world.rank, world.size)
    sides = [(listing, recipe.images)] + ([(targets, recipe.targets)] if targets and recipe.targets else [])
    bad: dict[int, str] = {}
    for files, chain in sides:
        fingerprint = hashlib.sha256("\n".join(files.paths).encode()).hexdigest()
        if len(set(world.gather(fingerprint))) > 1:
            raise UserError(f"{files.root}: the ranks see different files there; every host needs the same images")
        found = find_unreadable(files, shard.indices(len(files)), chain.reading)
        bad |= {int(i): f"{files.absolute(int(i))}: {why}" for part in world.gather(found) for i, why in part.items()}
    _report_bad(run, bad)
    good = [i for i in range(len(listing)) if i not in bad]
    opened = [Images.open(files.select(good), shard, chain, run.config.data.preload) for files, chain in sides]
    classes = f" in {len(listing.classes)} classes" if listing.classes else ""
    pairs = f" with targets of the same names in {targets.root}" if targets else ""
    stray = f", {len(listing.stray)} other files passed over" if listing.stray else ""
    log.info(f"{listing.root}: {len(good)} images{classes}{pairs}{stray}")
    if len(good) < minimum:
        raise UserError(f"{listing.root}: {len(good)} images are fewer than a batch; lower data.batch_size {minimum}")
    return DataSet(run.config, opened[0], opened[1] if len(opened) > 1 else None, recipe)


def _report_bad(run: Run, bad: dict[int, str]) -> None:
    limit = run.config.data.max_bad_images
    lines = [bad[i] for i in sorted(bad)]
    if len(bad) > limit:
        more = [f"... and {len(bad) - 20} more"] if len(bad) > 20 else []
        head = f"{len(bad)} unreadable images, data.max_bad_images allows {limit}; mend or remove them:"
        raise UserError("\n".join([head, *lines[:20], *more]))
    for line in lines:
        log.warning(f"Skipping unreadable image {line}")
    if bad:
        log.warning(f"Skipped {len(bad)} unreadable images of at most {limit}")


def describe(run: Run, *, steps: int, epoch: int = 0, classes: tuple[str, ...] = ()) -> Header:
    """The header of this run's model after an epoch of `steps` steps each."""
    model = run.config.model
    height, width, channels = run.config.input_shape
    assert height
    assert width
    return Header(
        kind=run.kind,
        epoch=epoch,
        step=epoch * steps,
        encoder=None if run.network else model.encoder,
        encoder_output=None if run.network else model.encoder_output,
        network=_digest(run.network) if run.network else None,
        height=height,
        width=width,
        channels=channels,
        target_channels=run.config.target_shape[2],
        classes=classes,
        batch_size=run.config.data.batch_size,
        steps_per_epoch=steps,
    )


def _digest(network: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(network, sort_keys=True).encode()).hexdigest()


def build_model(header: Header, network: dict[str, Any] | None, origin: str = "layers") -> keras.Model:
    """The model that a header describes, with random weights.

    Args:
        network: of a model that was built from a network file, else None.
        origin: the network's file, for messages.

    Raises:
        UserError: the network cannot be built, or takes or gives other shapes than the header's.
    """
    if network is not None:
        model = build_network(network, origin)
        _check_shapes(model, header)
        return model
    assert header.encoder
    assert header.encoder_output
    encoder = build_encoder(header.encoder, header.encoder_output, header.height, header.width, header.channels)
    if header.kind == "inpainter":
        return build_inpainter(encoder, header.target_channels)
    return build_classifier(encoder, len(header.classes)) if header.kind == "classifier" else encoder


def _check_shapes(model: keras.Model, header: Header) -> None:
    taken, given = model.input_shape[1:], (header.height, header.width, header.channels)
    if len(taken) != 3 or any(t not in (None, g) for t, g in zip(taken, given, strict=True)):
        raise UserError(f"layers: the network takes images of {_by(taken)}, the data gives {_by(given)}")
    made = model.output_shape[1:]
    if header.kind == "classifier" and made != (len(header.classes),):
        raise UserError(
            f"layers: the network's output has the shape {_by(made)}, the data has {len(header.classes)} classes: "
            f"{', '.join(header.classes)}"
        )
    if header.kind == "inpainter" and len(made) != 3:
        raise UserError(f"layers: the network's output has the shape {_by(made)}, pretrain needs one that makes images")


def check_output_shape(run: Run, model: keras.Model) -> None:
    """The model's output must have the shape of the targets; for masks, a channel per class or a single one.

    Raises:
        UserError: it has another.
    """
    made, wanted = model.output_shape[1:], run.config.target_shape
    masks = run.config.data.target_is_mask
    if made[:2] != wanted[:2] or (not masks and made[2] != wanted[2]):
        raise UserError(
            f"layers: the network makes images of {_by(made)}, the targets are {_by(wanted[:2] if masks else wanted)}; "
            "let data.target_transforms fit them"
        )


def _by(shape: Sequence[int | None]) -> str:
    """height x width x channels, or whatever the shape has."""
    return " x ".join("any" if extent is None else str(extent) for extent in shape)


def output_activation(run: Run) -> str:
    """The function at the end of this run's model."""
    if run.network is not None:
        return network_output_activation(run.network)
    return "softmax" if run.kind == "classifier" else "sigmoid"


def trained_classes(run: Run) -> tuple[str, ...] | None:
    """The class names of the classifier in `checkpoints.load`; None where the file does not tell."""
    load = run.config.checkpoints.load
    assert load is not None  # the configuration was checked

    def read() -> list[str]:
        found = checkpoint.find(load)
        if found.is_file() and legacy_weights.is_legacy(found):
            return []
        return list(checkpoint.read_header(found, allowed=("classifier",)).classes)

    return tuple(run.world.from_first(read)) or None


def load_by_name(run: Run, path: Path, model: keras.Model, *, whole: bool = False) -> list[str]:
    """Fill the layers of `model` that the file also has, on rank 0; `Trainer.synchronise` gives them to the others.

    Args:
        whole: every layer must be filled: the model is to be used as it is.

    Returns:
        The transfer's report, line by line.
    """

    def load() -> list[str]:
        found = checkpoint.find(path)
        kind, source = _read_weights(run, found)
        plan = transfer.plan_transfer(source, model)
        skipped = [*plan.missing, *(name for name, *_ in plan.mismatched)]
        if whole and skipped:
            raise UserError(f"{found}: without training every layer's weights must be there; not so: {skipped[0]}")
        transfer.copy_weights(plan, source, model)
        return [f"Loading {kind} weights from {found}", *plan.report(found.name)]

    lines = run.world.from_first(load)
    for line in lines:
        log.info(line)
    return lines


def _read_weights(run: Run, path: Path) -> tuple[str, LayerWeights]:
    """(what kind of model, its weights by layer name) of a checkpoint or of a Keras 2 file."""
    if path.is_file() and legacy_weights.is_legacy(path):
        return "Keras 2", legacy_weights.read_layers(path)
    allowed: tuple[Kind, ...] = ("inpainter", "encoder") if run.kind == "inpainter" else (*KINDS,)
    header = checkpoint.read_header(path, allowed=allowed)
    if run.network is None and header.encoder and header.encoder != run.config.model.encoder:
        raise UserError(f"{path}: its encoder is {header.encoder}, model.encoder is {run.config.model.encoder}")
    source = build_model(header, checkpoint.read_network(path), str(path))
    checkpoint.load_weights(path, source)
    return header.kind, transfer.layer_weights(source)


def make_trainer(
    run: Run,
    model: keras.Model,
    optimizer: keras.Optimizer | None,
    metrics: Mapping[str, PerExample] | None = None,
) -> Trainer:
    """A trainer whose ranks all start from the same weights: random, transferred, or those of the resumed run."""
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    jit_compile = on_gpu if run.config.jit_compile == "auto" else run.config.jit_compile
    weights, outputs = run.config.loss.weight, model.output_shape[-1]
    if weights and len(weights) != outputs:
        raise UserError(f"loss.weight has {len(weights)} weights for the {outputs} classes of the network")
    objective = build_objective(run.config.loss, output_activation(run))
    trainer = Trainer(model, optimizer, objective, metrics, world=run.world, jit_compile=jit_compile)
    if run.resumed:
        saved = run.config.checkpoints.save
        assert saved is not None
        name = f"model_checkpoint_{run.resumed.epoch}"
        run.world.from_first(lambda: checkpoint.restore(saved / name, model, optimizer))
    trainer.synchronise()
    return trainer


def steps_per_epoch(run: Run, data: DataSet) -> int:
    """What the configuration says, or one pass over the data."""
    return run.config.steps_per_epoch or pipeline.steps_per_pass(len(data), run.config.data.batch_size)


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
