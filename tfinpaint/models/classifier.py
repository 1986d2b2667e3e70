"""The classifier: the shared encoder and a softmax head."""

from __future__ import annotations

import keras
from keras import layers

from tfinpaint.models.layer_names import file_name

HEAD = "dense_1"  # its name in rmldnn


def build_classifier(encoder: keras.Model, classes: int, head: str = "flatten") -> keras.Model:
    """Return a classifier: the features of an encoder, flattened or averaged, and one dense softmax layer.

    Args:
        head: "flatten", as in rmldnn, or "pool": global average pooling (Lin, Chen, Yan, arXiv 1312.4400, section 3.2).

    Returns:
        Model from [batch, height, width, 3] to class probabilities [batch, classes], float32.
    """
    assert head in ("flatten", "pool")
    pool = layers.GlobalAveragePooling2D(name="avg_pool")
    x = pool(encoder.output) if head == "pool" else layers.Flatten(name="flatten_1")(encoder.output)
    x = layers.Dense(classes, name=HEAD)(x)
    x = layers.Activation("softmax", dtype="float32", name="softmax")(x)
    return keras.Model(encoder.input, x, name="classifier")


def head_layers(model: keras.Model) -> list[str]:
    """Return the names of the layers of a classifier whose weights depend on its classes.

    These are the last layer that mixes channels, such as a dense one, and the layers after it.
    """
    found = []
    for layer in reversed([layer for layer in model.layers if layer.weights]):
        found.append(file_name(layer.name))
        if any(len(weight.shape) > 1 for weight in layer.weights):
            break
    return found
