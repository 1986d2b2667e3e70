"""The plan of a sweep: shares and draws of the labels, and the settings that each way of training is tried with."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfinpaint.checkpoint.find import find_weights, labels_of_choice
from tfinpaint.config.diff import as_values, differences
from tfinpaint.config.schema import Config
from tfinpaint.data.listing.duplicates import Copy, duplicates_message, find_duplicates
from tfinpaint.data.listing.listing import Listing, hold_out, list_class_folders, take_fraction
from tfinpaint.errors import UserError
from tfinpaint.layout import ENCODER_WEIGHTS, MODEL_WEIGHTS, SWEEP_PLAN
from tfinpaint.probing.images import check_readable
from tfinpaint.storage.safe_json import read_json
from tfinpaint.system.wording import percent

log = logging.getLogger(__name__)

Method = Literal["pretrained_frozen", "fine_tuned", "random_frozen", "from_scratch"]
METHODS: dict[Method, str] = {
    "pretrained_frozen": "pretrained, frozen",
    "fine_tuned": "pretrained, fine-tuned",
    "random_frozen": "random, frozen",
    "from_scratch": "from scratch",
}
TRAINED: tuple[Method, ...] = ("fine_tuned", "from_scratch")
SCRATCH_STEPS = 3  # times those of fine-tuning
LEAST_STEPS = 500  # of fine-tuning, unless they are given: a pass over few images has too few to train from scratch
FINE_TUNING_FACTORS = (0.3, 1.0, 3.0)  # of the configuration's learning rate
SCRATCH_RATES = (3e-4, 1e-3, 3e-3)
SCRATCH_DECAYS = (5e-4, 5e-2)
VALIDATION = 0.2  # of the labelled images, unless the configuration has `data.validation_fraction`
# Keys that may differ because facts tell what of them matters, or because a sweep sets them.
_FREE = ("data.input_path", "data.test_input_path", "data.label_fraction", "steps_per_epoch", "num_epochs")
_FREE_SECTIONS = ("checkpoints.", "distributed.")


@dataclass(frozen=True)
class Asked:
    """What the options of the command ask for.

    Attributes:
        shares: fractions of the training images whose labels are used, in (0, 1].
        draws: number of draws of each share.
        steps: of a fine-tuning; None: those of the configuration with all labels, or LEAST_STEPS if that is more.
        rates: learning rates of fine-tuning; None: FINE_TUNING_FACTORS times that of the configuration.
        scratch_rates, scratch_decays: learning rates and weight decays from scratch.
    """

    shares: tuple[float, ...]
    draws: int
    steps: int | None = None
    rates: tuple[float, ...] | None = None
    scratch_rates: tuple[float, ...] = SCRATCH_RATES
    scratch_decays: tuple[float, ...] = SCRATCH_DECAYS


@dataclass(frozen=True)
class Setting:
    """The settings of one training in a grid."""

    learning_rate: float
    weight_decay: float

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"rate_{self.learning_rate:.6g}_decay_{self.weight_decay:.6g}"


@dataclass(frozen=True)
class Cell:
    """One draw of one share of the labels, the same for all methods.

    Attributes:
        share: fraction of the training images whose labels are used.
        number: of the draw, from 0.
        seed: of the runs; it draws the images, and the order and the random weights of training.
        labelled, trained, validated: numbers of images: labelled ones, and their parts for training and validation.
        unvalidated: classes without an image for validation.
    """

    share: float
    number: int
    seed: int
    labelled: int
    trained: int
    validated: int
    unvalidated: tuple[str, ...]

    @property
    def name(self) -> str:
        """The path of its folder in that of the sweep."""
        return f"share_{100 * self.share:.6g}/draw_{self.number}"


@dataclass(frozen=True)
class Plan:
    """What a sweep consists of.

    Attributes:
        folder: of the sweep.
        config: of `classify`, checked, with a validation fraction.
        weights: the checkpoint or weight file of the pretrained encoder.
        train, test: the images.
        cells: smallest share first.
        epochs, steps: epochs of each training, and steps per epoch of fine-tuning.
        grids: method -> settings that are tried.
        digest: SHA-256 of the pretrained weights.
        left_out: a line for each share that cannot be used.
        copies: the test images that are near-duplicates of training images.
        labels_of_choice: number of labelled images by which the probe in pretraining prefers the weights; 0 without.
    """

    folder: Path
    config: Config
    weights: Path
    train: Listing
    test: Listing
    cells: tuple[Cell, ...]
    epochs: int
    steps: int
    grids: Mapping[Method, Sequence[Setting]]
    digest: str
    left_out: tuple[str, ...]
    copies: tuple[Copy, ...]
    labels_of_choice: int

    def steps_of(self, method: Method) -> int:
        """Return the number of steps of a training by this method."""
        return self.epochs * self.steps * (SCRATCH_STEPS if method == "from_scratch" else 1)

    def rows(self) -> list[tuple[Cell, Method]]:
        """Return the final rows: all methods in each cell, but frozen encoders once with all labels.

        There every draw has the same images, on which nothing of a frozen encoder depends but its classifier.
        """
        return [
            (cell, method) for cell in self.cells for method in METHODS
            if method in TRAINED or cell.share < 1 or cell.number == 0
        ]  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Return what results depend on beside the configuration, shares and draws, as JSON values."""
        return {
            "pretrained weights (SHA-256)": self.digest,
            "training images": self.train.paths.digest(),
            "test images": self.test.paths.digest(),
            "epochs": self.epochs,
            "steps per epoch": self.steps,
            **{f"settings of {METHODS[key]}": [asdict(each) for each in grid] for key, grid in self.grids.items()},
        }

    def changes_since(self, saved: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return name -> (value then, value now) of everything, but for shares and draws, that changes results.

        Args:
            saved: the values of an earlier plan, from `saved_values`; keys that its version did not have are no change.
        """
        before = saved.get("config") if isinstance(saved.get("config"), dict) else {}
        changed = {
            key: values
            for key, values in differences(before or {}, self.config).items()
            if key not in _FREE and not key.startswith(_FREE_SECTIONS)
        }
        then, now = saved.get("facts"), self.facts()
        then = then if isinstance(then, dict) else {}
        return changed | {key: (then.get(key), now[key]) for key in now if then.get(key) != now[key]}


def make_plan(folder: Path, config: Config, asked: Asked) -> Plan:
    """List the images, draw the labels, and settle steps and grids.

    Args:
        folder: of the sweep.
        config: of `classify`, checked; `checkpoints.load` names the pretrained encoder.

    Raises:
        UserError: The configuration, the weights or the images cannot be used, or no share can.
    """
    _check_config(config)
    data = config.data
    assert config.checkpoints.load is not None
    assert data.input_path is not None
    assert data.test_input_path is not None
    found = find_weights(config.checkpoints.load)
    if found.note:
        log.info(found.note)
    if not data.validation_fraction:
        config = config.model_copy(update={"data": data.model_copy(update={"validation_fraction": VALIDATION})})
    train = list_class_folders(data.input_path, tag=data.training_tag)
    test = list_class_folders(data.test_input_path, train.classes, tag=data.testing_tag)
    copies = _check_images(train, test)
    cells, left_out = _draw_cells(train, config, asked)
    epochs, steps = _count_steps(train, config, asked.steps)
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    rates = asked.rates or tuple(factor * rate for factor in FINE_TUNING_FACTORS)
    grids: dict[Method, Sequence[Setting]] = {
        "fine_tuned": [Setting(each, decay) for each in _distinct(rates)],
        "from_scratch": [
            Setting(each, other) for each in _distinct(asked.scratch_rates) for other in _distinct(asked.scratch_decays)
        ],
    }
    return Plan(
        folder, config, found.path, train, test, cells, epochs, steps, grids, _digest(found.path), left_out,
        copies, labels_of_choice(found.path),
    )  # fmt: skip


def _distinct(numbers: Iterable[float]) -> list[float]:
    """Return the numbers, smallest first, and one of those that are equal in the digits that a folder's name has."""
    return list({f"{number:.6g}": number for number in sorted(set(numbers))}.values())


def _check_config(config: Config) -> None:
    if config.checkpoints.load is None:
        raise UserError(
            "no pretrained encoder is named: give --weights, a run folder or a weight file, or set checkpoints.load"
        )
    if config.data.input_path is None or config.data.test_input_path is None:
        raise UserError(
            "a sweep needs data.input_path, the training images, and data.test_input_path, the test images; "
            "`tfinpaint prepare` splits a folder of class folders into both"
        )
    if config.model.trainable not in (None, "all"):
        raise UserError(
            f"model.trainable: {config.model.trainable}: a sweep trains all layers, and judges frozen encoders beside "
            "that; remove it"
        )
    if config.data.max_bad_images:
        raise UserError("data.max_bad_images: a sweep uses the same images everywhere; set 0, and repair bad images")


def _check_images(train: Listing, test: Listing) -> tuple[Copy, ...]:
    """Decode each image once, unless it was before; return and log the near-duplicates among the test images.

    Raises:
        UserError: An image cannot be read.
    """
    prints = [check_readable(listing) for listing in (train, test)]
    copies = find_duplicates(prints[1], prints[0])
    for line in duplicates_message(copies, test.place, train.place, len(test)):
        log.warning(line)
    return tuple(copies)


def _draw_cells(train: Listing, config: Config, asked: Asked) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Return the cells, and a line for each share that has to be left out.

    Raises:
        UserError: No share is left.
    """
    cells, left_out = [], []
    for share in _distinct(asked.shares):
        for number in range(asked.draws):
            seed = config.seed + number
            labelled = take_fraction(train, share, seed)
            try:
                trained, validated = hold_out(labelled, config.data.validation_fraction, seed)
            except UserError:
                left_out.append(
                    f"{percent(share)} of the labels are left out: these are {len(labelled)} images, one of each "
                    "class, so that none can be kept out for validation"
                )
                break
            missing = np.setdiff1d(np.arange(len(train.classes)), validated.labels)
            names = tuple(train.classes[each] for each in missing)
            cells.append(Cell(share, number, seed, len(labelled), len(trained), len(validated), names))
    for line in left_out:
        log.warning(line)
    if not cells:
        raise UserError(f"{train.root}: no share of the labels can be used; name larger ones with --shares")
    return tuple(cells), tuple(left_out)


def _count_steps(train: Listing, config: Config, asked: int | None) -> tuple[int, int]:
    """Return the number of epochs and of steps per epoch of fine-tuning, the same for all shares."""
    epochs = config.num_epochs
    if asked is None and config.steps_per_epoch:
        return epochs, config.steps_per_epoch
    trained, _ = hold_out(train, config.data.validation_fraction, config.seed)
    steps = asked or max(LEAST_STEPS, epochs * (len(trained) // config.data.batch_size))
    epochs = min(epochs, steps)
    return epochs, math.ceil(steps / epochs)


def _digest(weights: Path) -> str:
    files = [weights / name for name in (ENCODER_WEIGHTS, MODEL_WEIGHTS)] if weights.is_dir() else [weights]
    # A checkpoint of a network file, or one within an epoch, has no file of the encoder alone.
    file = next((each for each in files if each.is_file()), files[-1])
    with file.open("rb") as opened:
        digest = hashlib.sha256()
        while block := opened.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def read_saved(folder: Path) -> dict[str, Any]:
    """Return what `save_plan` wrote into a folder; {} without it or where it cannot be read."""
    found = read_json(folder / SWEEP_PLAN)
    return found if isinstance(found, dict) else {}


def saved_values(plan: Plan, asked: Asked) -> dict[str, Any]:
    """Return the plan as JSON values."""
    config = as_values(plan.config)
    config["checkpoints"]["load"] = str(plan.weights)
    return {"facts": plan.facts(), "asked": asdict(asked), "config": config}


def asked_of(saved: Mapping[str, Any]) -> Asked:
    """Return what the options asked for, as `saved_values` has it."""
    values = saved["asked"]
    rates, shares, *scratch = (values[name] for name in ("rates", "shares", "scratch_rates", "scratch_decays"))
    return Asked(tuple(shares), values["draws"], values["steps"], rates and tuple(rates), *map(tuple, scratch))
