"""Export what a run has trained: find the checkpoint, write the format, check it against the run, describe it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfinpaint.checkpoint.find import FoundCheckpoint, find_reported, find_weights, run_folder_of
from tfinpaint.checkpoint.reader import read_config, read_header, require_config
from tfinpaint.config.schema import Config
from tfinpaint.data.tasks import classification_task
from tfinpaint.errors import UserError
from tfinpaint.exporting.card import CARD, Described, write_card
from tfinpaint.exporting.equality import (
    choose_photos,
    compare_classifiers,
    compare_encoders,
    inputs_by_decoding,
    inputs_of_run,
)
from tfinpaint.exporting.formats import ENCODER_FILE, write_classifier, write_keras
from tfinpaint.exporting.kinds import Format
from tfinpaint.exporting.models import load_encoder_of_run, photo_classifier
from tfinpaint.layout import PROJECT
from tfinpaint.runs.photo_classes import Classifier, load_classifier
from tfinpaint.runs.precision import recorded_precision
from tfinpaint.storage.atomic import new_folder
from tfinpaint.system.paths import display_path


def export_run(path: Path, kind: Format, output: Path) -> list[str]:
    """Write an export into a new folder.

    Args:
        path: as for `find_reported`; of a pretraining, its best checkpoint as `find_weights` finds it.
        output: the folder, which is not there yet.

    Returns:
        Lines that say what was written and how it agrees with the run.

    Raises:
        UserError: The run cannot be exported in this format, or the export does not compute what the run does.
        OSError: The folder cannot be written.
    """
    found = _find(path, kind)
    with new_folder(output) as folder:
        checks = _export_encoder(found, folder) if kind == "encoder" else _export_classifier(found, kind, folder)
        header, config = read_header(found.path), read_config(found.path)
        config = with_present_data(config, found.path) if config else None
        write_card(folder, Described(found.path, header, config, kind, checks))
    written = f"Exported as {kind}: {display_path(output)} ({CARD} says how it is used)"
    return [*([found.note] if found.note else []), *checks, written]


def _find(path: Path, kind: Format) -> FoundCheckpoint:
    found = find_reported(path)
    header = read_header(found.path)
    if header.kind == "classifier":
        return found
    if kind == "encoder":
        return find_weights(path)
    raise UserError(
        f"{path}: is a pretraining, which has no classes, and --format {kind} exports a classifier; its format is "
        "encoder, or name a run of tfinpaint classify"
    )


def with_present_data(config: Config, checkpoint: Path) -> Config:
    """Return the configuration of a run of a project with its images where they are after the project was moved.

    The files of a project name its own images relative to its folder, by which `tfinpaint run` finds them too.
    """
    run = run_folder_of(checkpoint.resolve())
    if run is None or config.workdir is None or not (run.parent / PROJECT).is_file():
        return config
    before = config.workdir.parent
    places = {key: getattr(config.data, key) for key in ("input_path", "test_input_path")}
    moved = {
        key: run.parent / path.relative_to(before)
        for key, path in places.items()
        if path is not None and path.is_relative_to(before)
    }
    return config.model_copy(update={"data": config.data.model_copy(update=moved)})


def _export_classifier(found: FoundCheckpoint, kind: Format, folder: Path) -> list[str]:
    """Write a classifier and compare it with the run. Returns sentences about that."""
    classifier = load_classifier(found.path, "float32")
    exported = write_classifier(folder, kind, photo_classifier(classifier), classifier.classes)
    config = with_present_data(require_config(found.path), found.path)
    photos = choose_photos(config, classifier.preprocessing.decoding.size or (1, 1))
    inputs = inputs_of_run(photos, classifier.preprocessing)
    expected = _probabilities(classifier, inputs)
    checks = [compare_classifiers(photos, expected, exported).sentence("probabilities")]
    if (precision := recorded_precision({"precision": config.precision})) != "float32":
        other = _probabilities(load_classifier(found.path), inputs)
        difference = float(np.abs(other - expected).max())
        checks.append(f"The run computes in {precision}, the export in float32: the run's differ by {difference:.1g}")
    if found_pair := inputs_by_decoding(config, classifier.preprocessing):
        name, scaled, whole = found_pair
        difference = float(np.abs(_probabilities(classifier, scaled) - _probabilities(classifier, whole)).max())
        checks.append(
            "The run decodes large JPEG files at a fraction of their size (data.jpeg_scaling), the export takes whole "
            f"photos: for this reason probabilities differ by up to {difference:.1g} ({name})"
        )
    return checks


def _probabilities(classifier: Classifier, inputs: np.ndarray) -> np.ndarray:
    outputs = np.asarray(classifier.model(inputs, training=False), np.float32)
    return np.exp(outputs) if classifier.gives_logarithms else outputs


def _export_encoder(found: FoundCheckpoint, folder: Path) -> list[str]:
    """Write an encoder and compare it with that of the run. Returns sentences about that."""
    encoder = load_encoder_of_run(found.path)
    exported = write_keras(folder / ENCODER_FILE, encoder.copy)
    header, config = encoder.header, with_present_data(require_config(found.path), found.path)
    preprocessing = classification_task(config, labels=False, augment=False).images
    photos = choose_photos(config, (header.height, header.width))
    inputs = inputs_of_run(photos, preprocessing)
    return [compare_encoders(photos, encoder.model, inputs, exported).sentence("features")]
