"""Files of a run, written whole or not at all, what is said where that fails, and how a path is shown."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfinpaint.storage.write_errors import naming

if TYPE_CHECKING:
    from PIL import Image


def write_bytes(path: Path, contents: bytes | memoryview) -> None:
    """Write under a temporary name beside `path`, on to the disk, then rename: a power cut leaves no empty file.

    Raises:
        OSError: it cannot be written; what stands at `path` is left as it was, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(path), partial.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write as `write_bytes` does, in UTF-8; parts of names that are not UTF-8 are written as they are."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_image(path: Path, image: Image.Image, kind: str, **options: Any) -> None:
    """Write an image as `write_bytes` does; Pillow does not tell why it cannot write to a file.

    Args:
        kind: the format, and `options` what Pillow takes for it.
    """
    contents = io.BytesIO()
    image.save(contents, kind, **options)
    write_bytes(path, contents.getbuffer())
