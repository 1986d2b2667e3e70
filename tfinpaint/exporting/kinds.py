"""The formats of an export, and the libraries that they need. Imports no TensorFlow."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

from tfinpaint.errors import UserError

Format = Literal["keras", "savedmodel", "onnx", "encoder"]
FORMATS: tuple[Format, ...] = get_args(Format)
ONNX_LIBRARIES = ("tf2onnx", "onnx", "onnxruntime")


def check_libraries(kind: Format) -> None:
    """Raise UserError where a format needs a library that is not installed."""
    missing = [name for name in ONNX_LIBRARIES if kind == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx: {' and '.join(missing)} not installed; install the extra onnx: pip install "
            f"{' '.join(ONNX_LIBRARIES)}"
        )
