"""Look into the batch at which a run stopped as not finite: where in the network values stop being numbers.

usage: python -m tfinpaint.replay --workdir runs/demo/pretrain [--batch FILE] [--checkpoint FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfinpaint.checkpoint import find
from tfinpaint.checkpoint.find import find_checkpoint
from tfinpaint.cli import command as cli
from tfinpaint.cli.command import run_command
from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import Config
from tfinpaint.distributed import world
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError

if TYPE_CHECKING:
    from tfinpaint.runs.nonfinite import NonfiniteBatch
    from tfinpaint.train.trainer import Trainer

MOST_NAMED = 5


def replay(workdir: Path, batch: Path | None, weights: Path | None) -> list[str]:
    """Run a kept batch forward and backward, without an update, and say what is not finite.

    Exactly the step that stopped the run, if the weights are those of then; otherwise, with the weights of the newest
    checkpoint, what comes of the images themselves.

    Args:
        workdir: the run folder.
        batch: a file of its folder `spoilt`; None: the last.
        weights: a checkpoint folder of the run, or `best` in its folder; None: the newest, or without one
            random weights as the run's first.

    Returns:
        The findings, a line each.

    Raises:
        UserError: the folder holds no run, or no such batch or checkpoint; or the model does not fit them.
    """
    config = _read_config(workdir)
    start_single_rank(config.distributed)
    from tfinpaint.runs.nonfinite import find_nonfinite_batches, load_nonfinite_batch

    found = load_nonfinite_batch(batch or find_nonfinite_batches(workdir))
    trainer, name = _rebuild(config, weights)
    head = f"{found.where}: {len(found.images)} images, with {name}; the run's loss was {found.loss:g}"
    return [head, *_findings(trainer, found)]


def _read_config(workdir: Path) -> Config:
    path = workdir / "config.resolved.yaml"
    if not path.is_file():
        raise UserError(f"{workdir}: not a run folder; expected {path.name} there")
    return load_config(path, workdir=workdir)


def _rebuild(config: Config, weights: Path | None) -> tuple[Trainer, str]:
    """(the run's trainer, what its weights are)."""
    import keras

    from tfinpaint.checkpoint.header import Kind
    from tfinpaint.checkpoint.model import build_model
    from tfinpaint.checkpoint.reader import read_header, restore_models
    from tfinpaint.data.listing import listing
    from tfinpaint.models import trainable
    from tfinpaint.models.keras_json.parse import read_network
    from tfinpaint.runs import build, initial_weights
    from tfinpaint.runs.build import describe_model, training_state
    from tfinpaint.runs.run import Run
    from tfinpaint.train.optimizers import build_optimizer

    keras.config.set_dtype_policy(config.precision)
    keras.utils.set_random_seed(config.seed)
    kind: Kind = "classifier" if config.data.target_type == "labels" else "inpainter"
    network = read_network(config.layers) if config.layers is not None else None
    run = Run(config, world.World(), kind, None, network)
    if weights is None and config.checkpoints.save:
        weights = next(reversed(find.list_checkpoints(config.checkpoints.save)), None)
    elif weights is not None:
        weights = find_checkpoint(weights, "--checkpoint").path
    header = read_header(weights, allowed=(kind,)) if weights else None
    classes: tuple[str, ...] = header.classes if header else ()
    if kind == "classifier" and not classes and config.data.input_path:
        classes = listing.list_class_folders(config.data.input_path, tag=config.data.training_tag).classes
    model = build_model(header or describe_model(run, steps=0, classes=classes), network, run.network_name)
    trainable.set_trainable(model, config.model.trainable)
    if header is None and config.checkpoints.load:
        initial_weights.load_by_name(run, config.checkpoints.load, model, classes=classes)
    steps = (header.steps_per_epoch if header else 0) or 1
    optimizer = build_optimizer(config.optimizer, steps, config.num_epochs, None)
    trainer = build.make_trainer(run, model, optimizer, steps=steps, scored=True)
    if weights is None:
        return trainer, "the weights that a run starts with (there is no checkpoint)"
    restore_models(weights, training_state(run, trainer))
    return trainer, f"the weights of {weights.name}"


def _findings(trainer: Trainer, kept: NonfiniteBatch) -> list[str]:
    import keras

    from tfinpaint.models.layer_names import file_name

    values, gradients = trainer.examine(kept.batch)
    given = {name: kept.batch[name] for name in ("inputs", "targets")}
    lines = [_by_example(name, array, kept.images) for name, array in (given | values).items()]
    layers = [layer for layer in trainer.model.layers if not isinstance(layer, keras.layers.InputLayer)]
    probe = keras.Model(trainer.model.input, [layer.output for layer in layers])
    outputs = probe(kept.batch["inputs"], training=True)
    lines.append(
        _by_name("outputs of layers", {file_name(layer.name): out for layer, out in zip(layers, outputs, strict=True)})
    )
    # Backward comes from the network's end: the first gradients that it spoils are those of the last layers.
    backward = {file_name(path): gradients[path] for path in reversed(gradients)}
    lines.append(_by_name("gradients, from the network's end", backward))
    if all(line.endswith(": finite") for line in lines):
        lines.append("Nothing is spoilt with these weights: the run's own had changed since; lower its learning rate")
    return lines


def _by_example(name: str, array: np.ndarray, images: Sequence[str]) -> str:
    """A line on an array whose first axis counts the examples."""
    bad = [image for image, values in zip(images, np.asarray(array), strict=True) if not _is_finite(values)]
    if not bad:
        return f"{name}: finite"
    return f"{name}: not finite in {len(bad)} of {len(images)} images: {_first(bad)}"


def _by_name(what: str, arrays: Mapping[str, np.ndarray]) -> str:
    bad = [name for name, values in arrays.items() if not _is_finite(values)]
    return f"{what}: not finite in {len(bad)} of {len(arrays)}, first: {_first(bad)}" if bad else f"{what}: finite"


def _is_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(np.asarray(values, np.float64)).all())


def _first(names: Iterable[str]) -> str:
    named = list(names)
    return ", ".join(
        [*named[:MOST_NAMED], *([f"and {len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else [])]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = cli.make_parser("replay")
        parser.add_argument("--workdir", type=Path, required=True, help="run folder")
        parser.add_argument("--batch", type=Path, help="file of its folder spoilt; default: the last")
        parser.add_argument("--checkpoint", type=Path, help="checkpoint folder, or RUN/best; default: the newest")
        parsed = parser.parse_args(arguments)
        if launched_rank():
            return  # one process looks; under a launcher the others have nothing to do
        print("\n".join(replay(parsed.workdir, parsed.batch, parsed.checkpoint)))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
