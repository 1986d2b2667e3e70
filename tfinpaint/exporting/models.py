"""Build the Keras models that are exported: a classifier of whole photos, and an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
from keras import layers, ops

from tfinpaint.checkpoint.header import Header
from tfinpaint.checkpoint.reader import open_checkpoint
from tfinpaint.config.encoders import ARCHITECTURES
from tfinpaint.errors import UserError
from tfinpaint.exporting.plain import plain_copy
from tfinpaint.exporting.preprocessing import prepared
from tfinpaint.models.decoder import encoder_part
from tfinpaint.runs.photo_classes import Classifier, computing_in

IMAGES, PROBABILITIES = "images", "probabilities"  # the names of the input and of the output


def photo_classifier(classifier: Classifier) -> keras.Model:
    """Return a model of Keras' own layers that prepares photos as the run of a classifier does.

    Returns:
        Model from uint8 [batch, any height, any width, 3], RGB, to float32 probabilities [batch, classes].

    Raises:
        UserError: A transform or a layer of the run cannot be exported.
    """
    images = layers.Input((None, None, 3), dtype="uint8", name=IMAGES)
    outputs = plain_copy(classifier.model)(prepared(images, classifier.preprocessing))
    if classifier.gives_logarithms:
        outputs = ops.exp(outputs)
    named = layers.Identity(name=PROBABILITIES, dtype="float32")(outputs)
    return keras.Model(images, named, name="photo_classifier")


@dataclass(frozen=True)
class Encoder:
    """The encoder of a run, and its copy for other programs.

    Attributes:
        header: of the checkpoint.
        model: the encoder as it was trained, from [batch, height, width, channels] to its last maps.
        copy: the same, of Keras' own layers, for images of any height and width.
    """

    header: Header
    model: keras.Model
    copy: keras.Model


def load_encoder_of_run(path: Path) -> Encoder:
    """Load the encoder of a checkpoint, of a pretraining or of a classifier, to compute in float32.

    Raises:
        UserError: It is not a checkpoint, is damaged, or has the network of a file, in which no encoder is known.
    """
    with computing_in("float32"), open_checkpoint(path) as saved:
        header = saved.header
        if header.encoder is None or header.encoder_output is None:
            raise UserError(
                f"{path}: its network was built from `layers` of the configuration, so it is not known which of them "
                "are the encoder; the formats keras, savedmodel and onnx export the whole network of a classifier"
            )
        model = saved.model()
    if header.kind != "encoder":
        model = encoder_part(model, ARCHITECTURES[header.encoder].output_layer(header.encoder_output))
    return Encoder(header, model, plain_copy(model, any_size=True))
