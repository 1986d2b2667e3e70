"""Divide examples among the ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfinpaint.distributed.equality import digest
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError


def shard(data: Any, world: World, *, drop_remainder: bool = True) -> Any:
    """Return this rank's share of the data: example `rank`, `rank + size`, `rank + 2 size`, ... of it.

    With equal batches, the batches of all ranks together are then those of one rank, for any number of ranks: divide
    first, and make batches of `batch_size // world.size` examples afterwards. Every rank calls this.

    Args:
        data: a `tf.data.Dataset` of single examples, of known length; or an array, or a tuple, list or dict of arrays
            of the same length. All ranks give the same examples in the same order: a dataset is shuffled with a
            seed, and with equal global seeds, which TensorFlow mixes in.
        drop_remainder: every rank gets the same number of examples, as training needs; the last ones, fewer than there
            are ranks, are left out. False: each example belongs to one rank, as an evaluation needs, and a rank may
            have one more than another.

    Returns:
        A dataset, or arrays in the same structure.

    Raises:
        UserError: these are no arrays, the length is unknown or differs, there are fewer examples than ranks, or the
            ranks give different data.
    """
    is_dataset = not isinstance(data, np.ndarray | tuple | list | dict) and hasattr(data, "cardinality")
    length = _length_of_dataset(data) if is_dataset else _length_of_arrays(data)
    # With one rank too: a shuffled dataset has another order each time that it is read.
    example = _first_of_dataset(data) if is_dataset else _first_and_last(data)
    if world.size == 1:
        return data
    _check_same_data(world, length, example)
    if length < world.size:
        raise UserError(
            f"{length} examples cannot be divided among {world.size} ranks; expected: one for each, or more"
        )
    kept = length - length % world.size if drop_remainder else length
    if is_dataset:
        return data.take(kept).shard(world.size, world.rank)
    return _map(lambda array: array[world.rank : kept : world.size], data)


def _length_of_dataset(dataset: Any) -> int:
    length = int(dataset.cardinality())
    if length < 0:
        raise UserError(
            f"the dataset has {'no end' if length == -1 else 'an unknown length'}; expected: a known one; divide it "
            "before `repeat`, or tell its length by .apply(tf.data.experimental.assert_cardinality(LENGTH))"
        )
    return length


def _length_of_arrays(data: Any) -> int:
    lengths = sorted({len(array) for array in _arrays(data)})
    if len(lengths) != 1:
        raise UserError(
            f"arrays of {' and '.join(map(str, lengths)) or 'no'} examples; expected: all of the same length"
        )
    return lengths[0]


def _check_same_data(world: World, length: int, example: str) -> None:
    ranks = world.all_gather({"length": length, "example": example})
    for rank, each in enumerate(ranks):
        if each["length"] != ranks[0]["length"]:
            raise UserError(
                f"rank {rank} has {each['length']} examples, rank 0 has {ranks[0]['length']}; expected: the same "
                "data on every rank, of which shard gives each rank its own"
            )
        if each["example"] != ranks[0]["example"]:
            raise UserError(
                f"the data of rank {rank} begins with another example than that of rank 0; expected: the same examples "
                "in the same order on every rank: shuffle with a seed, call keras.utils.set_random_seed with the same "
                "number on all ranks or on none, and change examples at random after shard"
            )


def _first_of_dataset(dataset: Any) -> str:
    import tensorflow as tf

    parts = [part for example in dataset.take(1) for part in tf.nest.flatten(example, expand_composites=True)]
    return " ".join(digest(part.numpy()) for part in parts)


def _first_and_last(data: Any) -> str:
    return " ".join(digest(array[place : place + 1]) for array in _arrays(data) for place in (0, len(array) - 1))


def _arrays(data: Any) -> list[Any]:
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list | tuple):
        return [each for part in data for each in _arrays(part)]
    if not getattr(data, "shape", None):  # the parts of a name would be its letters
        raise UserError(
            f"data of the type {type(data).__name__} cannot be divided among ranks; expected: a tf.data.Dataset, an "
            "array, or a tuple, list or dict of arrays; np.asarray makes an array of a list of names or numbers"
        )
    return [data]


def _map(function: Any, data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _map(function, part) for name, part in data.items()}
    if isinstance(data, list | tuple):
        parts = [_map(function, part) for part in data]
        return type(data)(*parts) if hasattr(data, "_fields") else type(data)(parts)  # a named tuple, or another
    return function(data)
