"""Write MODEL_CARD.md: what an exported model is, how it is used, what it was trained on, and how good it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfinpaint.checkpoint.find import find_reported, run_folder_of
from tfinpaint.checkpoint.header import Header
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.exporting.kinds import Format
from tfinpaint.report.about import now
from tfinpaint.report.intervals import accuracy_interval
from tfinpaint.report.summaries import read_summary
from tfinpaint.storage.atomic import write_text
from tfinpaint.system.paths import display_path
from tfinpaint.version import __version__

log = logging.getLogger(__name__)

CARD = "MODEL_CARD.md"
PHOTO = """file = Image.open("photo.jpg")
if file.mode.startswith("I"):  # grey values of 16 bits, which convert() would clip
    file = Image.fromarray((np.asarray(file) // 257).astype(np.uint8))
photo = np.asarray(file.convert("RGB"))"""
USAGE: Mapping[Format, str] = {  # also in docs/exporting.md, where tests execute it
    "keras": f"""import keras, numpy as np
from PIL import Image

model = keras.saving.load_model("model.keras")
{PHOTO}
probabilities = model.predict(photo[None])[0]""",
    "savedmodel": f"""import numpy as np, tensorflow as tf
from PIL import Image

served = tf.saved_model.load(".").signatures["serving_default"]
{PHOTO}
found = served(images=tf.constant(photo[None]))  # found["probabilities"], found["classes"]""",
    "onnx": f"""import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
{PHOTO}
(probabilities,) = session.run(["probabilities"], {{"images": photo[None]}})""",
    "encoder": """import keras

encoder = keras.saving.load_model("encoder.keras")
images = keras.Input((64, 64, 3))
features = keras.layers.GlobalAveragePooling2D()(encoder(images))""",
}


@dataclass(frozen=True)
class Described:
    """What a card tells about.

    Attributes:
        path: of the checkpoint.
        header, config: of the checkpoint, and of the run that wrote it; None where it is not recorded.
        format: of the export.
        checks: sentences about the comparison with the run.
    """

    path: Path
    header: Header
    config: Config | None
    format: Format
    checks: Sequence[str]


def write_card(folder: Path, model: Described) -> None:
    """Write the card into the folder of an export."""
    is_classifier, summary = model.format != "encoder", _summary(model)
    title = "Image classifier" if is_classifier else "Image encoder"
    parts = {
        f"# {title}": [_origin(model)],
        "## Use": [f"```python\n{USAGE[model.format]}\n```", _inputs(model)],
        "## Data": _data(model.config, summary),
        "## Recipe": _recipe(model),
        "## Figures": [*_figures(summary), *(f"{sentence}." for sentence in model.checks)],
        "## Limits": _limits(is_classifier),
        "## Licence": ["To be filled in by you: that of the model depends on the images that it was trained on."],
    }
    texts = ["\n\n".join([heading, *filter(None, paragraphs)]) for heading, paragraphs in parts.items()]
    write_text(folder / CARD, "\n\n".join(texts) + "\n")


def _origin(model: Described) -> str:
    return (
        f"Exported by tfinpaint {__version__} (Keras {keras.__version__}, TensorFlow {tf.__version__}) on {now()[:10]} "
        f"from `{display_path(model.path)}`."
    )


def _inputs(model: Described) -> str:
    """Say what the model takes and returns."""
    header = model.header
    size = f"{header.width} x {header.height}"
    if model.format != "encoder":
        return (
            "Input: `images`, uint8 [batch, height, width, 3], RGB, of any size, upright; values of 16 bits are "
            f"divided by 257. What the run did to its test images is built in: they become {size} pixels. Output: "
            f"`probabilities`, float32 [batch, {len(header.classes)}], in this order (also in `classes.json`): "
            f"{', '.join(header.classes)}."
        )
    steps = [*model.config.data.transforms, *model.config.data.input_transforms] if model.config else []
    values = [f"{each.kind} {_plain(each)}" for each in steps if each.changes_values and not each.is_random]
    scaling = "; ".join(["values from 0 to 1 (uint8 / 255)", *values])
    return (
        f"Input: float32 [batch, height, width, {header.channels}], {'RGB' if header.channels == 3 else 'grey'}, "
        f"prepared so: {scaling}. It was trained at {size} pixels; multiples of its stride are possible. Output: the "
        "maps of the last layer, float32 [batch, height / stride, width / stride, maps]."
    )


def _plain(step: Any) -> Any:
    return step.model_dump()[step.kind]


def _data(config: Config | None, summary: Mapping[str, Any]) -> list[str]:
    if config is None:
        return ["Not recorded beside the weights."]
    count = summary.get("labels") or summary.get("training_images")
    images = f"{count:,} images of " if count else ""
    lines = [f"Trained on {images}`{display_path(config.data.input_path)}`."] if config.data.input_path else []
    if config.data.test_input_path:
        lines.append(f"Tested on `{display_path(config.data.test_input_path)}`.")
    return [*lines, "What these images show, where they come from and whom they leave out: to be filled in by you."]


def _recipe(model: Described) -> list[str]:
    config, header = model.config, model.header
    network = f"{header.encoder}, stem {header.stem}, until {header.encoder_output}" if header.encoder else "own layers"
    rows = {"network": network, "epochs": header.epoch, "steps": header.step}
    if config is not None:
        start = display_path(config.checkpoints.load) if config.checkpoints.load else "random weights"
        optimizer = config.optimizer
        rows |= {
            "began from": start,
            "loss": config.loss.function,
            "optimizer": f"{optimizer.type}, learning rate {optimizer.learning_rate:g}",
            "batch": header.batch_size,
            "transforms": "; ".join(f"{each.kind} {_plain(each)}" for each in config.input_steps) or "none",
            "precision": config.precision,
            "seed": config.seed,
        }
    return [
        "\n".join(
            ["| key | value |", "|---|---|", *(f"| {name} | {_text(str(value))} |" for name, value in rows.items())]
        )
    ]


def _summary(model: Described) -> Mapping[str, Any]:
    """Return the summary of the run, if it is about this checkpoint and can be used; else {}."""
    folder = run_folder_of(model.path)
    try:
        known = folder is not None and find_reported(folder).path.resolve() == model.path.resolve()
    except UserError:
        known = False
    try:
        return (read_summary(folder) if folder is not None and known else None) or {}
    except UserError as error:
        log.warning(f"{error}; {CARD} has no figures of the run")
        return {}


def _figures(summary: Mapping[str, Any]) -> list[str]:
    names = ("test_accuracy", "test_mean_recall", "test_expected_calibration_error")
    (accuracy, recall, error), images = map(summary.get, names), summary.get("test_images")
    if accuracy is None or recall is None or error is None or not images:
        return ["No figures on test images are recorded for this checkpoint."]
    low, high = accuracy_interval(round(accuracy * images), images)
    lines = [
        f"Accuracy {accuracy:.3f} on {images:,} test images (95 % interval {low:.3f} to {high:.3f}), mean recall "
        f"{recall:.3f}, expected calibration error {error:.3f}."
    ]
    rows = [
        f"| {_text(each['class'])} | {each['images']} | {_cell(each['recall'])} | {_cell(each['precision'])} |"
        for each in summary.get("test_classes", [])
    ]
    heading = ["| class | test images | recall | precision |", "|---|---|---|---|"]
    return [*lines, "\n".join([*heading, *rows])] if rows else lines


def _text(value: str) -> str:
    return value.replace("|", "\\|")  # would begin another cell


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _limits(is_classifier: bool) -> list[str]:
    if not is_classifier:
        return ["Features are those of the images above; other images may need training of the encoder too."]
    return [
        "A photo of none of the classes gets probabilities all the same. Figures hold for photos like the test images; "
        "others may be recognised less well. Rotate photos as their EXIF data say before they are given to the model."
    ]
