"""Write a model in each format of `tfinpaint export`, and read it back as a program without tfinpaint does."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.exporting.kinds import Format
from tfinpaint.exporting.models import IMAGES, PROBABILITIES
from tfinpaint.storage.atomic import write_json

KERAS_FILE, ONNX_FILE, ENCODER_FILE = "model.keras", "model.onnx", "encoder.keras"
CLASSES_FILE = "classes.json"
CLASSES = "classes"  # the output of a SavedModel, and the entry of an ONNX file's metadata, with the names
_AXES = ("batch", "height", "width")
_SIGNATURE = tf.TensorSpec((None, None, None, 3), tf.uint8, name=IMAGES)

Exported = Callable[[np.ndarray], np.ndarray]  # images -> outputs


def write_classifier(folder: Path, kind: Format, model: keras.Model, classes: Sequence[str]) -> Exported:
    """Write a classifier of photos into a folder, with the names of its classes, and read it again.

    Args:
        model: what `models.photo_classifier` returns.

    Returns:
        The written file as a function of uint8 images [batch, height, width, 3].
    """
    write_json(folder / CLASSES_FILE, list(classes))
    match kind:
        case "savedmodel":
            return _write_saved_model(folder, model, classes)
        case "onnx":
            return _write_onnx(folder / ONNX_FILE, model, classes)
    return write_keras(folder / KERAS_FILE, model)


def write_keras(file: Path, model: keras.Model) -> Exported:
    """Write a Keras model into a file, and return it as it is read again."""
    model.save(file)
    read = keras.saving.load_model(file, compile=False)
    return lambda images: np.asarray(read(images, training=False))


def _write_saved_model(folder: Path, model: keras.Model, classes: Sequence[str]) -> Exported:
    names = tf.constant(list(classes))

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {PROBABILITIES: model(images, training=False), CLASSES: names}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, input_signature=[_SIGNATURE])
    archive.write_out(str(folder), verbose=False)
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda images: served(**{IMAGES: tf.constant(images)})[PROBABILITIES].numpy()


def _write_onnx(file: Path, model: keras.Model, classes: Sequence[str]) -> Exported:
    import onnx
    import onnxruntime

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Keras, which looks for NumPy's old names
        model.export(str(file), format="onnx", verbose=False, input_signature=[_SIGNATURE])
    described = onnx.load(str(file))
    _name_ends(described.graph)
    onnx.helper.set_model_props(described, {CLASSES: json.dumps(list(classes))})
    onnx.save(described, str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run([PROBABILITIES], {IMAGES: images})[0]


def _name_ends(graph: Any) -> None:
    """Give the only input and output of an ONNX graph, and their axes, the names that the documentation has."""
    (given,), (made,) = graph.input, graph.output
    for node in graph.node:
        node.input[:] = [IMAGES if name == given.name else name for name in node.input]
        node.output[:] = [PROBABILITIES if name == made.name else name for name in node.output]
    given.name, made.name = IMAGES, PROBABILITIES
    for place, axis in enumerate(_AXES):
        given.type.tensor_type.shape.dim[place].dim_param = axis
    made.type.tensor_type.shape.dim[0].dim_param = _AXES[0]
