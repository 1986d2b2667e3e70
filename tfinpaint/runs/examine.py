"""Rebuild the trainer of a run, and find where in its network a batch becomes non-finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.checkpoint.find import find_checkpoint, list_checkpoints
from tfinpaint.checkpoint.header import Kind
from tfinpaint.checkpoint.model import build_model, size_text
from tfinpaint.checkpoint.reader import load_weights, open_checkpoint
from tfinpaint.config.schema import Config
from tfinpaint.data.listing.listing import list_class_folders
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import companion_weights
from tfinpaint.models.keras_json.parse import read_network
from tfinpaint.models.layer_names import file_name
from tfinpaint.runs.build import describe_model, make_optimizer, select_trained
from tfinpaint.runs.initial_weights import load_by_name
from tfinpaint.runs.nonfinite import NonfiniteBatch
from tfinpaint.runs.run import Run
from tfinpaint.runs.trainer import make_trainer
from tfinpaint.train.trainer import Trainer

MOST_NAMED = 5


def rebuild_trainer(config: Config, checkpoint: Path | None) -> tuple[Trainer, str]:
    """Rebuild the trainer of a run on a single rank.

    Args:
        config: the run's configuration.
        checkpoint: a checkpoint folder of the run, or `best` in its folder; None: the newest, or the initial weights if
            there is none.

    Returns:
        The trainer, and a description of its weights.

    Raises:
        UserError: There is no such checkpoint, or the model does not fit it.
    """
    keras.config.set_dtype_policy("float32" if config.precision == "auto" else config.precision)
    keras.utils.set_random_seed(config.seed)
    kind: Kind = "classifier" if config.data.target_type == "labels" else "inpainter"
    network = read_network(config.layers) if config.layers is not None else None
    run, world = Run(config, kind, network=network), World()
    if checkpoint is not None:
        checkpoint = find_checkpoint(checkpoint, "--checkpoint").path
    elif config.checkpoints.save:
        checkpoint = next(reversed(list_checkpoints(config.checkpoints.save)), None)
    if checkpoint is None:
        model, steps = _initial_model(run, world), 1
        name = "the weights that a run starts with (there is no checkpoint)"
    else:
        with open_checkpoint(checkpoint, allowed=(kind,)) as saved:
            model, steps = saved.model(), saved.header.steps_per_epoch or 1
        averaged = "averages of the " if config.optimizer.ema_decay is not None else ""
        name = f"the {averaged}weights of {checkpoint.name}"
    select_trained(config, model)
    optimizer = make_optimizer(run, model, steps)
    trainer = make_trainer(run, world, model, optimizer, steps=steps, scored=True)
    if checkpoint:
        for beside, (network, _) in trainer.companions.items():
            load_weights(checkpoint / companion_weights(beside), network)
    return trainer, name


def _initial_model(run: Run, world: World) -> keras.Model:
    """Build the model as the run began with it: random, or with the weights of `checkpoints.load`."""
    config = run.config
    classes: tuple[str, ...] = ()
    if run.kind == "classifier" and config.data.input_path:
        classes = list_class_folders(config.data.input_path, tag=config.data.training_tag).classes
    model = build_model(describe_model(run, steps=0, classes=classes), run.network, run.network_name)
    if config.checkpoints.load:
        load_by_name(run, world, config.checkpoints.load, model, classes)
    return model


def find_nonfinite(trainer: Trainer, kept: NonfiniteBatch, file: Path) -> list[str]:
    """Run a saved batch forward and backward, without an update; return lines that say what is not finite.

    Args:
        file: the batch's file, for messages.

    Raises:
        UserError: The batch does not fit the run.
    """
    try:
        values, gradients = trainer.examine(kept.batch)
    except (LookupError, TypeError, ValueError, tf.errors.InvalidArgumentError):
        size = size_text(trainer.model.input_shape[1:])
        raise UserError(
            f"{file}: is no batch of this run, whose network takes images of {size} and their targets; name one that "
            "this run has kept"
        ) from None
    given = {name: kept.batch[name] for name in ("inputs", "targets") if name in kept.batch}
    lines = [_by_example(name, array, kept.images) for name, array in (given | values).items()]
    layers = [layer for layer in trainer.model.layers if not isinstance(layer, keras.layers.InputLayer)]
    probe = keras.Model(trainer.model.input, [layer.output for layer in layers])
    outputs = probe(kept.batch["inputs"], training=True)
    lines.append(
        _by_name("outputs of layers", {file_name(layer.name): out for layer, out in zip(layers, outputs, strict=True)})
    )
    # The backward pass begins at the output: the first non-finite gradients are those of the last layers.
    backward = {file_name(path): gradients[path] for path in reversed(gradients)}
    lines.append(_by_name("gradients, from the output backwards", backward))
    if all(line.endswith(": finite") for line in lines):
        lines.append(
            "All values are finite with these weights: those of the run diverged later; lower the learning rate"
        )
    return lines


def _by_example(name: str, array: np.ndarray, images: Sequence[str]) -> str:
    """Return a line about an array whose first axis counts the examples."""
    bad = [image for image, values in zip(images, np.asarray(array), strict=True) if not _is_finite(values)]
    if not bad:
        return f"{name}: finite"
    return f"{name}: not finite in {len(bad)} of {len(images)} images: {_first(bad)}"


def _by_name(what: str, arrays: Mapping[str, np.ndarray]) -> str:
    bad = [name for name, values in arrays.items() if not _is_finite(values)]
    return f"{what}: not finite in {len(bad)} of {len(arrays)}, first: {_first(bad)}" if bad else f"{what}: finite"


def _is_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(np.asarray(values, np.float64)).all())


def _first(names: Sequence[str]) -> str:
    more = [f"and {len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return ", ".join([*names[:MOST_NAMED], *more])
