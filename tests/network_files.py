"""Write network files as Keras 2 does."""

import json
from pathlib import Path


def conv(name: str, filters: int, activation: str, **config: object) -> dict:
    config = {
        "name": name,
        "filters": filters,
        "kernel_size": [3, 3],
        "padding": "same",
        "activation": activation,
    } | config
    return {"class_name": "Conv2D", "config": config}


def network(path: Path, *layers: dict, size: int = 32, channels: int = 3) -> str:
    """Write a network file as Keras 2 does; each layer takes the output of the one before it."""
    first = {
        "class_name": "InputLayer",
        "config": {"name": "input_1", "batch_input_shape": [None, size, size, channels]},
    }
    listed = []
    for layer in (first, *layers):
        inbound = [[[listed[-1]["name"], 0, 0, {}]]] if listed else []
        listed.append(layer | {"name": layer["config"]["name"], "inbound_nodes": inbound})
    ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [[listed[-1]["name"], 0, 0]]}
    model = {"class_name": "Model", "keras_version": "2.3.1", "config": {"name": "model_1", "layers": listed, **ends}}
    path.write_text(json.dumps(model))
    return str(path)
