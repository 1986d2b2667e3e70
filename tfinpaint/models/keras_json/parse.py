"""Read the JSON description of a network into one canonical form. Nothing is built here.

The description is a functional or sequential model of Keras 2 or Keras 3, or a plain list of layers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from tfinpaint.errors import UserError

MAX_BYTES = 4 * 2**20  # ResNet50 takes 0.2 MB; in memory, JSON takes up to thirty times its size
MAX_LAYERS = 2000  # ResNet152 has 560
MAX_REFERENCES = 10_000  # to layers, in inbound_nodes
SHAPE_KEYS = ("batch_shape", "batch_input_shape", "shape", "input_shape")
KERAS2_HARD_SIGMOID = "keras2_hard_sigmoid"  # max(0, min(1, x / 5 + 1 / 2)); that of Keras 3 has x / 6
_ZERO_PADDED = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "AveragePooling2D")
_WINDOWS = (*_ZERO_PADDED, "Conv2DTranspose", "MaxPooling2D")

# Classes that are refused on purpose -> the reason.
_CODE = "because it holds Python code, and no code from a file is run"
_CALL = "because it calls a TensorFlow function by name, and only the layers listed in docs/configuration.md are built"
_NESTED = "because it is a model within the model; write its layers into the outer one"
REFUSED = {
    **dict.fromkeys(("Lambda", "PyFunc"), _CODE),
    **dict.fromkeys(("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "ClassMethod", "InstanceProperty"), _CALL),
    **dict.fromkeys(("Functional", "Model", "Sequential"), _NESTED),
}

Layer = dict[str, Any]
Call = tuple[str, int]  # layer name, number of earlier calls of that layer


def read_network(source: Path | list[dict[str, Any]]) -> dict[str, Any]:
    """Return the description of a network in canonical form.

    Args:
        source: a JSON file of a Keras 2 or 3 model, functional or sequential, or a list of layers. A layer without
            `inbound_nodes` takes the output of the layer before it. Without `input_layers` and `output_layers`, the
            inputs are the InputLayers and the outputs are the layers that no other layer takes.

    Returns:
        Plain JSON values: name, layers (each with class_name, name, config, inbound_nodes), input_layers,
        output_layers. Reading them again gives the same result.

    Raises:
        UserError: there is no such description, or its graph has missing layers, cycles, or more than one input or
            output.
    """
    if isinstance(source, Path):
        return canonical(_read_document(source), str(source))
    try:  # through JSON, for a copy that has only plain values
        layers = json.loads(json.dumps(source, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"layers: contains a value that JSON cannot represent ({error}); use plain values") from error
    return canonical({"layers": layers}, "layers")


def _read_document(path: Path) -> dict[str, Any]:
    """Return the config in a file: an object with `layers`."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file; `layers` names a Keras network in JSON")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: is larger than {MAX_BYTES >> 20} MiB; `layers` names a Keras network in JSON")
        document = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}); write it with model.to_json() of Keras") from error
    if isinstance(document, list):
        return {"layers": document}
    if not isinstance(document, dict):
        raise UserError(f"{path}: must contain an object, as model.to_json() of Keras writes it")
    if "class_name" not in document:
        return document
    if document["class_name"] not in ("Model", "Functional", "Sequential"):
        raise UserError(
            f"{path}: class_name is {document['class_name']!r:.80}, must be Model, Functional or Sequential; write the "
            "file with model.to_json() of Keras"
        )
    config = document.get("config")
    if document["class_name"] == "Sequential" and isinstance(config, list):  # before Keras 2.2.3
        config = {"layers": config}
    if not isinstance(config, dict):
        raise UserError(f"{path}: `config` must be an object that contains `layers`")
    shape, layers = config.get("build_input_shape"), config.get("layers")
    if document["class_name"] == "Sequential" and shape is not None and isinstance(layers, list) and layers:
        first = layers[0].get("config") if isinstance(layers[0], dict) else None
        if not (isinstance(first, dict) and any(first.get(key) is not None for key in SHAPE_KEYS)):
            entry = {"class_name": "InputLayer", "config": {"name": "input", "batch_input_shape": shape}}
            config = {**config, "layers": [entry, *layers]}  # some versions of Keras 2 state the input only here
    return {**config, "keras2": str(document.get("keras_version", "")).startswith("2.")}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def input_size(network: dict[str, Any]) -> tuple[int, int] | None:
    """Return (height, width) of the images that a canonical network takes; None if it takes any size."""
    name = network["input_layers"][0][0]
    config = next(layer["config"] for layer in network["layers"] if layer["name"] == name)
    key = next((key for key in SHAPE_KEYS if isinstance(config.get(key), list)), None)
    if key is None:
        return None
    sides = config[key][1:3] if key.startswith("batch") else config[key][:2]
    return (sides[0], sides[1]) if len(sides) == 2 and all(type(side) is int and side > 0 for side in sides) else None


def canonical(config: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return a functional config in the form of `read_network`.

    Args:
        config: an object with `layers`.
        origin: name of the file, for messages.

    Raises:
        UserError: as for `read_network`.
    """
    listed = config.get("layers")
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{origin}: `layers` must be a list of at least one layer")
    if len(listed) > MAX_LAYERS:
        raise UserError(f"{origin}: {len(listed)} layers, at most {MAX_LAYERS} can be built")
    found: list[Layer] = []
    for position, item in enumerate(listed, start=1):
        found += _canonical_layer(item, position, found[-1]["name"] if found else None, origin)
    for layer in found if config.get("keras2") is True else ():  # Keras 3 uses the name for another function
        if str(layer["config"].get("activation")).lower() == "hard_sigmoid":
            layer["config"]["activation"] = KERAS2_HARD_SIGMOID
    for name, count in Counter(layer["name"] for layer in found).items():
        if count > 1:
            raise UserError(f"{origin}: {count} layers are called {name!r}; give each its own name")
    if (references := sum(len(node) for layer in found for node in layer["inbound_nodes"])) > MAX_REFERENCES:
        raise UserError(f"{origin}: layers take {references} outputs of others, at most {MAX_REFERENCES} are allowed")
    calls = call_order(found, origin)
    consumed = {(ref[0], ref[1]) for layer in found for node in layer["inbound_nodes"] for ref in node}
    entries = [layer["name"] for layer in found if layer["class_name"] == "InputLayer"]
    ends = sorted(call for call in calls if call not in consumed and call[0] not in entries)
    inputs = _ends(config, "input_layers", [(name, 0) for name in entries], origin)
    outputs = _ends(config, "output_layers", ends, origin)
    if inputs[0][0] not in entries:
        raise UserError(f"{origin}: input_layers names {inputs[0][0]!r}, which is not an InputLayer of the file")
    if (outputs[0][0], outputs[0][1]) not in calls:
        raise UserError(f"{origin}: output_layers names {outputs[0][0]!r}, call {outputs[0][1]}, which does not exist")
    name = config["name"] if isinstance(config.get("name"), str) else "network"
    return {"name": name, "layers": found, "input_layers": inputs, "output_layers": outputs}


def _canonical_layer(item: Any, position: int, before: str | None, origin: str) -> list[Layer]:
    """Return a layer, with an InputLayer before it if it is the first one of a list and states the shape itself."""
    class_name = item.get("class_name") if isinstance(item, dict) else None
    if not isinstance(class_name, str) or not class_name.isprintable():
        raise UserError(f"{origin}: layer {position} must be an object with class_name and config")
    config = item.get("config", {})
    if not isinstance(config, dict):
        raise UserError(f"{origin}: layer {position} ({class_name}): config must be an object")
    name = item.get("name", config.get("name", f"{class_name.lower()}_{position}"))
    if not isinstance(name, str) or not name or not name.isprintable():  # it appears in messages
        raise UserError(f"{origin}: layer {position} ({class_name}): its name must be a text, not {name!a:.80}")
    layer: Layer = {"class_name": class_name, "name": name, "config": config, "inbound_nodes": []}
    is_input = class_name == "InputLayer"
    with blamed_on(layer, origin):
        if reason := REFUSED.get(class_name):
            raise ValueError(f"this class is not supported, {reason}")
        if "inbound_nodes" in item:
            layer["inbound_nodes"] = _nodes(item["inbound_nodes"])
            if bool(layer["inbound_nodes"]) == is_input:
                raise ValueError("inbound_nodes must be empty for an InputLayer, and for no other layer")
        elif not is_input and before is not None:
            layer["inbound_nodes"] = [[[before, 0, 0]]]
        elif not is_input:
            shape = {key: config[key] for key in SHAPE_KEYS if key in config}
            if not shape:
                raise ValueError("comes first and has no input; put an InputLayer with batch_shape before it")
            entry = {"class_name": "InputLayer", "name": f"{name}_input", "config": shape, "inbound_nodes": []}
            layer["inbound_nodes"] = [[[entry["name"], 0, 0]]]
            return [entry, *_with_padding(layer)]
        return _with_padding(layer)


def _with_padding(layer: Layer) -> list[Layer]:
    """Return a layer whose `padding` is a number, or [height, width] as in rmldnn, after a layer that pads zeros."""
    padding = layer["config"].get("padding")
    if layer["class_name"] not in _WINDOWS or padding is None or isinstance(padding, str):
        return [layer]
    sides = [padding, padding] if type(padding) is int else padding
    if not isinstance(sides, list) or len(sides) != 2 or any(type(side) is not int or side < 0 for side in sides):
        raise ValueError(f'padding must be "valid", "same", a number or two numbers, not {json.dumps(padding):.40}')
    layer = {**layer, "config": {**layer["config"], "padding": "valid"}}
    if not any(sides):
        return [layer]
    if layer["class_name"] not in _ZERO_PADDED:
        raise ValueError(f'padding of this class must be "valid", "same" or 0, not {json.dumps(padding):.40}')
    zeros: Layer = {
        "class_name": "ZeroPadding2D",
        "name": f"{layer['name']}_zero_padding",
        "config": {"padding": sides},
        "inbound_nodes": layer["inbound_nodes"],
    }
    calls = range(len(zeros["inbound_nodes"]))
    return [zeros, {**layer, "inbound_nodes": [[[zeros["name"], call, 0]] for call in calls]}]


def _ends(config: dict[str, Any], key: str, default: list[Call], origin: str) -> list[list[Any]]:
    """Return the one reference [name, call, tensor] of input_layers or output_layers, in a list."""
    references: list[list[Any]] = [[name, call, 0] for name, call in default]
    if config.get(key) is not None:
        try:
            references = _references(config[key])
        except (ValueError, RecursionError) as error:
            raise UserError(f"{origin}: {key}: {error}") from error
    if len(references) != 1:
        names = ", ".join(reference[0] for reference in references[:5]) or "none"
        raise UserError(f"{origin}: the network must have one of {key}, not {len(references)} ({names})")
    return references


def _nodes(listed: Any) -> list[list[list[Any]]]:
    """Return the calls of a layer, each as the references [name, call, tensor] to its inputs."""
    if not isinstance(listed, list):
        raise ValueError("inbound_nodes must be a list")
    nodes = [_references(_keras3_history(node) if isinstance(node, dict) else node) for node in listed]
    if not all(nodes):
        raise ValueError("inbound_nodes has a call without inputs")
    return nodes


def _keras3_history(node: dict[str, Any]) -> list[Any]:
    """Return the references in a call as Keras 3 writes it: one tensor or one list of tensors as its only argument."""
    args = node.get("args")
    if not isinstance(args, list) or len(args) != 1:
        raise ValueError("a call in inbound_nodes must have one argument: a tensor or a list of tensors")
    kwargs = node.get("kwargs", {})
    # Keras 3 writes training=false for every Dropout, which the `training` of the whole model overrides.
    if isinstance(kwargs, dict) and kwargs.get("training") is False:
        kwargs = {**kwargs, "training": None}
    references = []
    for tensor in args[0] if isinstance(args[0], list) else [args[0]]:
        config = tensor.get("config") if isinstance(tensor, dict) else None
        history = config.get("keras_history") if isinstance(config, dict) else None
        if not isinstance(history, list) or tensor.get("class_name") != "__keras_tensor__":
            raise ValueError("a call in inbound_nodes has an argument that is not the output of a layer")
        references.append([*history[:3], kwargs])
    return references


def _references(listed: Any) -> list[list[Any]]:
    """Return [[name, call, tensor], ...] from such a list, with or without call arguments, or from a single one."""
    if isinstance(listed, list) and listed and isinstance(listed[0], str):
        listed = [listed]
    if not isinstance(listed, list):
        raise ValueError("must be a list of [layer name, call, tensor]")
    return [_reference(value) for value in listed]


def _reference(value: Any) -> list[Any]:
    complete = isinstance(value, list) and len(value) in (3, 4)
    if not complete or not isinstance(value[0], str) or not all(type(number) is int for number in value[1:3]):
        raise ValueError(f"{json.dumps(value):.80} must be [layer name, call, tensor]")
    if value[2] != 0:
        raise ValueError(f"takes output {value[2]} of {value[0]!r}; layers have one output, number 0")
    kwargs = value[3] if len(value) == 4 and value[3] is not None else {}
    if not isinstance(kwargs, dict):
        raise ValueError(f"{json.dumps(value):.80}: the fourth element must be an object")
    for key, argument in kwargs.items():
        if key not in ("training", "mask") or argument is not None:
            raise ValueError(f"is called with {key}={json.dumps(argument):.40}; call arguments are not supported")
    return value[:3]


def call_order(layers: list[Layer], origin: str) -> list[Call]:
    """Return every call of every layer, each after the calls whose outputs it takes.

    Raises:
        UserError: an input does not exist, or there is a cycle.
    """
    needs: dict[Call, list[Call]] = {}
    for layer in layers:
        for number, node in enumerate(layer["inbound_nodes"] or [[]]):
            needs[layer["name"], number] = [(before, index) for before, index, _ in node]
    for (name, _), sources in needs.items():
        for source in sources:
            if source not in needs:
                raise UserError(f"{origin}: layer {name}: its input {source[0]!r}, call {source[1]}, does not exist")
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = " -> ".join(name for name, _ in error.args[1])
        raise UserError(f"{origin}: these layers take their own output: {cycle}") from error


@contextmanager
def blamed_on(layer: Layer, origin: str) -> Iterator[None]:
    """Raise UserError with the layer's name for any error inside: Keras raises all kinds for wrong arguments."""
    try:
        yield
    except Exception as error:
        reason = _first_line(error)
        raise UserError(f"{origin}: layer {layer['name']} ({layer['class_name']}): {reason}") from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error message, without colours and Keras's line about where it happened."""
    for line in re.sub(r"\x1b\[[\d;]*m|\{\{.*?\}\}| \[Op:.*", "", str(error)).splitlines():
        if line.strip() and not line.startswith("Exception encountered when calling"):
            return line.strip()
    return type(error).__name__
