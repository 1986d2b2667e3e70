"""What is to be packed into a folder of records, and into which shards."""

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

SHARD_BYTES = 256 * 2**20  # of images, about: large enough to be read in one go, small enough to be copied again


def check_record_names(names: Iterable[str]) -> None:
    """Refuse names that TFRecord cannot hold. Raises UserError."""
    for name in names:
        if not is_text(name):
            raise UserError(f"{name!r}: the file's name is not UTF-8, which records need; rename it")


@dataclass(frozen=True)
class RecordsPlan:
    """The images of one folder of records.

    Attributes:
        names: as they are to be called, sorted; an image in a folder has the first folder's name for its class.
        sources: what they are called where they come from, in the same order.
        sizes: int64, their bytes.
        checked: every image was decoded already; otherwise that is done on the way, and bad ones are left out.
    """

    names: Names
    sources: Names
    sizes: np.ndarray
    checked: bool

    def divide(self) -> list[range]:
        """The images of each shard: equally many bytes, about `SHARD_BYTES`."""
        ends = np.cumsum(self.sizes)
        total = int(ends[-1])
        count = max(1, -(-total // SHARD_BYTES))
        cuts = np.searchsorted(ends, [total * number // count for number in range(1, count)], side="right")
        bounds = np.unique([0, *cuts, len(self.names)]).tolist()  # none is empty, where one image is huge
        return [range(first, last) for first, last in pairwise(bounds)]

    def classes(self) -> dict[str, int]:
        """The number of each class; none where no image is in a folder."""
        found = {name.partition("/")[0] for name in self.names if "/" in name}
        return {name: number for number, name in enumerate(sorted(found))}

    def store(self, path: Path) -> None:
        """Write it to a file. Raises OSError."""
        names, sources = self.names, self.sources
        values = (names.text, names.starts, sources.text, sources.starts, self.sizes, np.array([self.checked]))
        store_arrays(path, dict(zip(_DTYPES, values, strict=True)))

    @classmethod
    def load(cls, path: Path) -> RecordsPlan | None:
        """What `store` has written, None where it is not there whole."""
        found = load_arrays(path, _DTYPES)
        if not found:
            return None
        names, sources = Names(found["text"], found["starts"]), Names(found["source_text"], found["source_starts"])
        return cls(names, sources, found["sizes"], bool(found["checked"][0]))


_DTYPES: dict[str, DTypeLike] = {
    "text": np.uint8, "starts": np.uint64, "source_text": np.uint8, "source_starts": np.uint64,
    "sizes": np.int64, "checked": np.bool_,
}  # fmt: skip
