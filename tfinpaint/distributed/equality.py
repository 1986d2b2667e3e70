"""Find out whether all ranks hold the same values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfinpaint.distributed.world import World


class Difference(NamedTuple):
    """A variable that is not the same on all ranks.

    Attributes:
        place: its place in the list.
        ranks: the ranks whose bytes differ from those of rank 0.
    """

    place: int
    ranks: list[int]


def digest(values: Any) -> str:
    """Return 16 hexadecimal digits that two arrays share only if shape, dtype and bytes are equal."""
    array = np.ascontiguousarray(values)
    found = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=8)
    found.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return found.hexdigest()


def differences(world: World, variables: Sequence[Any]) -> list[Difference]:
    """Return the variables that are not the same on all ranks; every rank calls this.

    Args:
        variables: Keras variables, in the same order on every rank. A variable that another rank does not have differs.
    """
    if world.size == 1:
        return []
    digests = world.all_gather([digest(variable.numpy()) for variable in variables])
    longest = max(len(each) for each in digests)
    columns = zip(*(each + [""] * (longest - len(each)) for each in digests), strict=True)
    others = [[rank for rank, each in enumerate(column) if each != column[0]] for column in columns]
    return [Difference(place, ranks) for place, ranks in enumerate(others) if ranks]
