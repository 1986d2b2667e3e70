"""Layer names of network files -> names that Keras 3 and TensorFlow accept, and back. Imports neither of them.

Keras 3 refuses `/` in a name, which the DenseNets of Keras 2 have, and TensorFlow refuses blanks, colons, accents and
others as soon as a step is traced. So every byte of a name that is not a letter, a digit or one of `_ . -` is written
as `>` and its two hexadecimal digits: `conv1/conv` becomes `conv1>2Fconv`. No two names become the same. Checkpoints,
transfers, messages and `model.trainable` use the names of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote


def keras_name(name: str) -> str:
    """Return the name under which a layer of a network file is built."""
    return quote(name, safe="").replace("~", "%7E").replace("%", ">")


def file_name(name: str) -> str:
    """Return the name that a layer has in its network file, from that of the built layer, or of its variable's path."""
    return unquote(name.replace(">", "%"))


def renaming_note(names: Sequence[str]) -> str | None:
    """Return a sentence on the layers that are built under other names; None where there are none.

    Args:
        names: of all layers, as the network file has them.
    """
    renamed = [name for name in names if keras_name(name) != name]
    if not renamed:
        return None
    return (
        f"{len(renamed)} layer names have characters that Keras 3 does not take: {renamed[0]!r} is "
        f"{keras_name(renamed[0])!r} within Keras; checkpoints, transfers and messages keep the names of the file"
    )
