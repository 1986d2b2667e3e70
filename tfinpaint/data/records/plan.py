"""Plan which images are packed into a folder of records, and into which shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tfinpaint.data.listing.names import Names
from tfinpaint.errors import UserError
from tfinpaint.storage.mapped_arrays import load_arrays, store_arrays
from tfinpaint.system.paths import is_text

SHARD_BYTES = 256 * 2**20  # of images, approximately: large for fast reading, small enough to be copied again


def check_record_names(names: Iterable[str]) -> None:
    """Raise UserError if the name of a file cannot be stored in a TFRecord."""
    for name in names:
        if not is_text(name):
            raise UserError(f"{name!r}: the file's name is not UTF-8, which records need; rename it")


@dataclass(frozen=True)
class RecordsPlan:
    """The images of one folder of records.

    Attributes:
        names: their names in the records, sorted; the first folder in a name is the image's class.
        sources: their names in the source, in the same order.
        sizes: int64, their sizes in bytes.
        checked: whether every image was decoded already; otherwise they are checked, and excluded if bad, when packed.
    """

    names: Names
    sources: Names
    sizes: np.ndarray
    checked: bool

    def shard_ranges(self) -> list[range]:
        """Return the images of each shard: equally many bytes, about `SHARD_BYTES`."""
        ends = np.cumsum(self.sizes)
        total = int(ends[-1])
        count = max(1, -(-total // SHARD_BYTES))
        cuts = np.searchsorted(ends, [total * number // count for number in range(1, count)], side="right")
        bounds = np.unique([0, *cuts, len(self.names)]).tolist()  # unique: no shard is empty
        return [range(first, last) for first, last in pairwise(bounds)]

    def classes(self) -> dict[str, int]:
        """Return the number of each class; {} if no image is in a folder."""
        found = {name.partition("/")[0] for name in self.names if "/" in name}
        return {name: number for number, name in enumerate(sorted(found))}

    def store(self, path: Path) -> None:
        """Write the plan to a file. Raises OSError."""
        names, sources = self.names, self.sources
        values = (names.text, names.starts, sources.text, sources.starts, self.sizes, np.array([self.checked]))
        store_arrays(path, dict(zip(_DTYPES, values, strict=True)))

    @classmethod
    def load(cls, path: Path) -> RecordsPlan | None:
        """Return the plan that `store` wrote; None if the file is missing or damaged."""
        found = load_arrays(path, _DTYPES)
        if not found:
            return None
        names, sources = Names(found["text"], found["starts"]), Names(found["source_text"], found["source_starts"])
        return cls(names, sources, found["sizes"], bool(found["checked"][0]))


_DTYPES: dict[str, DTypeLike] = {
    "text": np.uint8, "starts": np.uint64, "source_text": np.uint8, "source_starts": np.uint64,
    "sizes": np.int64, "checked": np.bool_,
}  # fmt: skip
