"""The frozen rows of a sweep: logistic regression on the features of the pretrained and of random encoders.

usage, by `tfinpaint sweep` alone: python -m tfinpaint.sweeping.frozen FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfinpaint.cli.command import run_command
from tfinpaint.config.schema import Config
from tfinpaint.config.sections import Distributed
from tfinpaint.data.listing.listing import fraction_indices
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.sweeping.plan import TRAINED, Cell, Method, Plan, asked_of, make_plan, read_saved
from tfinpaint.sweeping.rows import Row, row_path, write_row
from tfinpaint.system.progress import log_progress

if TYPE_CHECKING:
    from tfinpaint.probing.encoder import Source

STAGE = 5
Features = Mapping[str, tuple[np.ndarray, np.ndarray]]  # description -> float32 [training | test images, channels]


def missing_rows(plan: Plan) -> list[tuple[Cell, Method]]:
    """Return the frozen rows of a plan that are not finished."""
    return [
        (cell, method)
        for cell, method in plan.rows()
        if method not in TRAINED and not row_path(plan.folder, cell, method).exists()
    ]


def compute_frozen_rows(plan: Plan) -> None:
    """Compute and write the frozen rows that a plan lacks, at least one.

    Raises:
        UserError: The weights or an image cannot be used, or features are not finite.
    """
    pretrained, random = _features(plan)
    labels = plan.train.labels.astype(np.int64), plan.test.labels.astype(np.int64)
    missing = missing_rows(plan)
    for cell, method in log_progress(missing, len(missing), "Frozen encoders, row"):
        chosen = fraction_indices(plan.train, cell.share, cell.seed)
        found = _fit(pretrained if method == "pretrained_frozen" else random, chosen, *labels)
        row = Row(cell.share, cell.number, cell.seed, cell.labelled, method, *found)
        write_row(row_path(plan.folder, cell, method), row)


def _features(plan: Plan) -> tuple[Features, Features]:
    """Return the features of the pretrained encoder, and of the random ones."""
    from tfinpaint.data.tasks import classification_task
    from tfinpaint.probing.baselines import random_encoders
    from tfinpaint.probing.encoder import load_encoder
    from tfinpaint.probing.features import extract_features

    height, width, _ = plan.config.input_shape
    assert height is not None
    assert width is not None
    source = load_encoder(plan.weights, (height, width), required=False)
    check_source(plan, source)
    preprocessing = classification_task(plan.config, labels=False, augment=False).images
    source = replace(source, preprocessing=preprocessing)  # the same inputs as for the trained classifiers
    models = {source.name: (source.encoder, source.model), **random_encoders(source, plan.train)}
    parts = [extract_features(listing, preprocessing, models, [STAGE]) for listing in (plan.train, plan.test)]
    features = {name: (parts[0][name][STAGE], parts[1][name][STAGE]) for name in models}
    return {source.name: features.pop(source.name)}, features


def check_source(plan: Plan, source: Source) -> None:
    """Raise UserError where an encoder is not that of the trained classifiers, or takes images of another size."""
    if source.shape != plan.config.input_shape:
        sizes = [" x ".join(map(str, shape)) for shape in (plan.config.input_shape, source.shape)]
        raise UserError(
            f"data.transforms produce images of {sizes[0]} (height, width, channels), but {plan.weights} was "
            f"trained on {sizes[1]}; use the same size"
        )
    for name in ("encoder", "stem") if plan.config.layers is None else ():
        stored, configured = getattr(source, name), getattr(plan.config.model, name)
        if stored != configured:
            raise UserError(f"{plan.weights}: its {name} is {stored}, model.{name} is {configured}; use the same")


def _fit(
    candidates: Features, chosen: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray
) -> tuple[dict[str, float | str], bool, float | None, float, tuple[int, ...]]:
    """Fit logistic regression on the best of several encoders' features, and test it.

    The encoder and C are chosen by cross-validation on the labelled images alone.

    Args:
        chosen: int [images]: the labelled training images.

    Returns:
        What `Row` has behind its method.
    """
    from tfinpaint.probing.classifiers import fit_linear_probe

    known = train_labels[chosen]
    name = _best_of(candidates, chosen, known)
    train, test = candidates[name]
    probe = fit_linear_probe(train[chosen], known)
    predicted = probe.probabilities(test).argmax(axis=1)
    settings: dict[str, float | str] = {"c": probe.strength}
    if len(candidates) > 1:
        settings["encoder"] = name
    accuracy = float(np.mean(predicted == test_labels))
    return settings, False, probe.validated, accuracy, tuple(predicted.tolist())


def _best_of(candidates: Features, chosen: np.ndarray, labels: np.ndarray) -> str:
    """Return the name of the encoder of the highest accuracy in cross-validation on (at most 1,000) labelled images."""
    from tfinpaint.probing.classifiers import Scaling, validate_strengths
    from tfinpaint.probing.evaluation import SELECTION_IMAGES, SELECTION_STRENGTHS

    if len(candidates) == 1:
        return next(iter(candidates))
    some = np.arange(len(chosen))
    if len(chosen) > SELECTION_IMAGES:
        some = np.sort(np.random.default_rng(0).choice(len(chosen), SELECTION_IMAGES, replace=False))
    accuracies = {}
    for name, (train, _) in candidates.items():
        features = train[chosen[some]]
        found = validate_strengths(Scaling.of(features)(features), labels[some], SELECTION_STRENGTHS)
        accuracies[name] = 0.0 if found is None else float(found.max())
    return max(accuracies, key=accuracies.__getitem__)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        (folder,) = map(Path, sys.argv[1:] if arguments is None else arguments)
        start_single_rank(Distributed())
        saved = read_saved(folder)
        compute_frozen_rows(make_plan(folder, Config.model_validate(saved["config"]), asked_of(saved)))

    return run_command(command, needs_output=False)


if __name__ == "__main__":
    sys.exit(main())
