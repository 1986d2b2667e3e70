"""Sequences of millions of names in two arrays; a Python string takes about 60 bytes beyond its characters."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import overload

import numpy as np

from tfinpaint.system.paths import is_text

BLOCK = 2**16  # names that are Python strings at the same time
# The names of files need not be UTF-8: Python represents other bytes as lone surrogates, which this encoding keeps.
_ENCODING = ("utf-8", "surrogatepass")


class Names(Sequence[str]):
    """An immutable sequence of strings, or a selection from one, which shares its characters.

    Attributes:
        text: uint8, all strings in UTF-8, one after the other.
        starts: uint64 [strings + 1], where each string begins in `text`, and where the last ends.
        rows: uint32, the strings that are selected, in order; None for all of them.
    """

    def __init__(self, text: np.ndarray, starts: np.ndarray, rows: np.ndarray | None = None) -> None:
        # asarray: every access to a numpy.memmap would create another one, which is slow
        self.text, self.starts, self.rows = np.asarray(text), np.asarray(starts), rows

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """Return the sequence of these strings."""
        text, starts = bytearray(), array("Q", [0])
        for name in names:
            text += name.encode(*_ENCODING)
            starts.append(len(text))
        return cls(np.frombuffer(text, np.uint8), np.frombuffer(starts, np.uint64))

    def __len__(self) -> int:
        return len(self.starts) - 1 if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        row = self.row(index)
        return self.text[int(self.starts[row]) : int(self.starts[row + 1])].tobytes().decode(*_ENCODING)

    def __iter__(self) -> Iterator[str]:
        if self.rows is not None:
            yield from (self[index] for index in range(len(self)))
            return
        for first in range(0, len(self), BLOCK):
            ends = self.starts[first : first + BLOCK + 1].tolist()
            text = self.text[ends[0] : ends[-1]].tobytes()
            for start, end in pairwise(ends):
                yield text[start - ends[0] : end - ends[0]].decode(*_ENCODING)

    def __eq__(self, other: object) -> bool:
        """Return True for any sequence of the same strings."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(name) for name in islice(self, 3))
        return f"Names({len(self)}: {shown}{', ...' if len(self) > 3 else ''})"

    def row(self, index: int) -> int:
        """Return the place of a string of this selection in the whole sequence."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return index if self.rows is None else int(self.rows[index])

    def select(self, indices: Sequence[int] | np.ndarray) -> Names:
        """Return the strings of these indices, in the given order."""
        chosen = np.asarray(indices, np.int64)
        rows = chosen if self.rows is None else self.rows[chosen]
        return Names(self.text, self.starts, rows.astype(np.uint32))

    def digest(self) -> str:
        """Return the SHA-256 of the strings in their order, hexadecimal."""
        digest, names = hashlib.sha256(), iter(self)
        while block := list(islice(names, BLOCK)):
            digest.update("\0".join([*block, ""]).encode(*_ENCODING))
        return digest.hexdigest()

    def check(self) -> None:
        """Raise ValueError if arrays that come from records are not the names of files below a folder, in UTF-8."""
        starts, text = self.starts, self.text
        if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(text) or not (starts[:-1] < starts[1:]).all():
            raise ValueError("the positions of the names do not fit the names")
        if len(self) >= 2**32:
            raise ValueError(f"{len(self)} names, at most {2**32 - 1} are supported")
        first = text[starts[:-1]]
        if (first & 0xC0 == 0x80).any() or (first == ord("/")).any():
            raise ValueError("a name begins inside a character, or is an absolute path")
        for match in re.finditer(rb"\.\.|\0", text.data):  # ".." may also be the end of a name and the start of another
            name = self[int(np.searchsorted(starts, match.start(), side="right")) - 1]
            if "\0" in name or ".." in name.split("/"):
                raise ValueError(f"{name!r} points outside the folder")
        for name in self:  # UnicodeDecodeError is a ValueError
            if not is_text(name):
                raise ValueError(f"{name!r} is not UTF-8")
