"""Describe layers as Keras 2 writes them to JSON, and build or refuse networks of them."""

import numpy as np
import pytest

from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import build_network
from tfinpaint.models.keras_json.parse import read_network

KERNEL = {"filters": 4, "kernel_size": [3, 3], "padding": "same"}


def layer(class_name, name, *inputs, **config):
    """A layer as Keras 2 writes it; `inputs` are the names it takes, () for an InputLayer."""
    node = [[[each, 0, 0, {}] if isinstance(each, str) else [*each, {}] for each in inputs]]
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": node if inputs else [],
    }


def image(name="image", **config):
    return layer("InputLayer", name, batch_input_shape=[None, 8, 8, 3], dtype="float32", sparse=False, **config)


def pixels(count=2):
    return np.random.default_rng(0).random((count, 8, 8, 3), np.float32)


def refused(*listed, **config):
    """The message with which a network is refused, by reading or building."""
    with pytest.raises(UserError) as raised:
        build_network(read_network([*listed]) if not config else {"layers": [*listed], **config}, "network.json")
    assert "\n" not in str(raised.value)
    return str(raised.value)
