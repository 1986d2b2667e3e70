"""Translate the layer names of network files into names that Keras 3 and TensorFlow accept, and back.

Keras 3 does not accept `/` in a name, which the DenseNets of Keras 2 have; TensorFlow does not accept blanks, colons
or accents when it traces a step. Therefore every byte of a name that is not a letter, a digit or one of `_ . -` is
written as `>` and its two hexadecimal digits: `conv1/conv` becomes `conv1>2Fconv`. Different names stay different.
Checkpoints, transfers, messages and `model.trainable` use the names of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote


def keras_name(name: str) -> str:
    """Return the name under which a layer of a network file is built."""
    return quote(name, safe="").replace("~", "%7E").replace("%", ">")


def file_name(name: str) -> str:
    """Return the name in the network file of a layer, given its name in Keras or the path of one of its variables."""
    return unquote(name.replace(">", "%"))


def renaming_note(names: Sequence[str]) -> str | None:
    """Return a sentence about the layers that are built under other names, or None if there are none.

    Args:
        names: names of all layers in the network file.
    """
    renamed = [name for name in names if keras_name(name) != name]
    if not renamed:
        return None
    return (
        f"{len(renamed)} layer names have characters that Keras 3 does not accept: {renamed[0]!r} is "
        f"{keras_name(renamed[0])!r} within Keras; checkpoints, transfers and messages keep the names of the file"
    )
