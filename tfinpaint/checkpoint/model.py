"""Build the model that the header of a checkpoint describes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import keras

from tfinpaint.checkpoint.header import Header
from tfinpaint.errors import UserError
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.keras_json.build import MAX_WEIGHTS, build_network


def network_digest(network: dict[str, Any]) -> str:
    """Return the SHA-256 of a network's definition, as in headers."""
    return hashlib.sha256(json.dumps(network, sort_keys=True).encode()).hexdigest()


def build_model(
    header: Header, network: dict[str, Any] | None, origin: str = "layers", most_weights: int = MAX_WEIGHTS
) -> keras.Model:
    """Build the model that a header describes, with random weights.

    Args:
        network: the definition of a model that was built from a network file; else None.
        origin: the network's file, for messages.
        most_weights: maximal number of weights of a network, see `models.keras_json.build.build_network`.

    Raises:
        UserError: The network cannot be built, or its input or output has another shape than in the header.
    """
    if network is not None:
        model = build_network(network, origin, most_weights)
        _check_shapes(model, header)
        return model
    assert header.encoder
    assert header.encoder_output
    shape = header.height, header.width, header.channels
    encoder = build_encoder(header.encoder, header.encoder_output, *shape, stem=header.stem)
    if header.kind == "inpainter":
        return build_inpainter(
            encoder,
            header.target_channels,
            bottleneck=header.bottleneck,
            decoder=header.decoder,
            activation=header.output_activation,
        )
    if header.kind == "classifier":
        return build_classifier(encoder, len(header.classes), header.head)
    return encoder


def _check_shapes(model: keras.Model, header: Header) -> None:
    taken, given = model.input_shape[1:], (header.height, header.width, header.channels)
    if len(taken) != 3 or any(t not in (None, g) for t, g in zip(taken, given, strict=True)):
        hint = ""
        if len(taken) == 3 and taken[2] == 1 and header.channels == 3:
            hint = "; set data.input_grayscale: true"
        raise UserError(
            f"layers: the network takes images of {size_text(taken)}, the data gives {size_text(given)} "
            f"(height x width x channels){hint}"
        )
    made = model.output_shape[1:]
    if header.kind == "classifier" and made != (len(header.classes),):
        raise UserError(
            f"layers: the network's output has the shape {size_text(made)}, the data has {len(header.classes)} "
            f"classes: {', '.join(header.classes)}"
        )
    if header.kind == "inpainter" and len(made) != 3:
        raise UserError(
            f"layers: the network's output has the shape {size_text(made)}, pretrain needs one that makes images"
        )


def size_text(shape: Sequence[int | None]) -> str:
    """Return a shape as a text, such as "224 x 224 x 3"."""
    return " x ".join("any" if extent is None else str(extent) for extent in shape)
