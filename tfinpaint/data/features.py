"""The features of a rank's images: what the frozen layers of a network make of them, computed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Features:
    """The features of a rank's share of the examples, in the order of the listing.

    Attributes:
        rows: [share, ...], in memory or mapped from a file.
        examples: int64 [share]: the example whose image each row was computed from. It is another one than that of the
            row where an image had become unreadable and was replaced.
        ranks: their number, which is also the distance of two rows' examples in the listing.
    """

    rows: np.ndarray
    examples: np.ndarray
    ranks: int

    def replaced(self, ids: tf.Tensor) -> tf.Tensor:
        """Return int64 [batch]: the examples that stand for these."""
        return tf.gather(tf.constant(self.examples), ids // self.ranks)

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """Return the features [batch, ...] of these examples of this rank."""
        kind = tf.as_dtype(self.rows.dtype)
        found = tf.numpy_function(lambda places: self.rows[places], [ids // self.ranks], kind, stateful=False)
        return tf.ensure_shape(found, [None, *self.rows.shape[1:]])


def store_features(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...], dtype: np.dtype, folder: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Collect features batch by batch, in memory, or in a file that the operating system removes with this process.

    Args:
        batches: (features [batch, ...], int64 examples [batch]).
        shape: of all features.
        folder: of the file; None: in memory.

    Returns:
        The features, as an array or a read-only map of the file, and their examples.

    Raises:
        OSError: the file cannot be written.
    """
    examples = [np.zeros(0, np.int64)]  # a rank may have no images
    if folder is None or shape[0] == 0:
        rows, done = np.empty(shape, dtype), 0
        for features, ids in batches:
            rows[done : done + len(ids)] = features
            done += len(ids)
            examples.append(ids)
    else:
        with TemporaryFile(dir=folder) as file:  # without a name, so that nothing is left even after a kill
            for features, ids in batches:
                file.write(np.ascontiguousarray(features).view(np.uint8).data)
                examples.append(ids)
            file.flush()
            rows = np.memmap(file, dtype, "r", shape=shape)
    return rows, np.concatenate(examples)
