"""Images that can no longer be read: replaced by others, counted, limited in number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from tfinpaint.data.examples import Images
from tfinpaint.data.images.decode import UnreadableImageError
from tfinpaint.system.activity import report_activity

log = logging.getLogger(__name__)


MOST_NAMED = 20  # bad images on the terminal, of a rank


@dataclass
class Failures:
    """The examples of a rank's share that can no longer be read, although they could when they were checked.

    In training each has the next readable one of the share in its place, until there are too many. Which one that is
    depends on the example alone, and not on when a thread comes to it.

    Attributes:
        limit: `data.max_bad_images`; None: none may fail, as in evaluation, whose figures would be of other images.
        before: bad images that count as well: found by the check, or by other ranks.
        found: example -> (its file, the reason).
        are_all: no image of the share can be read.
    """

    limit: int | None = None
    before: int = 0
    found: dict[int, tuple[str, str]] = field(default_factory=dict)
    are_all: bool = False

    @property
    def are_too_many(self) -> bool:
        return bool(self.found) and self.before + len(self.found) > (self.limit or 0)

    def read(self, sides: Sequence[Images], index: int) -> tuple[int, list[np.ndarray]]:
        """(example, its image on each side) of this example, or of the one in its place. Threads may call it.

        Raises:
            UnreadableImageError: too many are bad, or all.
        """
        shard, total = sides[0].shard, len(sides[0].listing)
        for candidate in chain(range(index, total, shard.count), range(shard.index, index, shard.count)):
            if self.are_too_many:
                break
            if candidate in self.found:
                continue
            pixels = []
            for side in sides:
                report_activity()
                try:
                    pixels.append(side.decode(candidate))
                except UnreadableImageError as error:
                    self._add(candidate, side.listing.place(candidate), str(error))
                    break
            else:
                return candidate, pixels
        else:
            self.are_all = True
        raise UnreadableImageError("no other image may take its place")

    def _add(self, index: int, place: str, reason: str) -> None:
        entry = place, reason
        is_new = self.found.setdefault(index, entry) is entry  # of two threads that come to it, one names it
        if is_new and not self.are_too_many and len(self.found) <= MOST_NAMED:
            log.warning(f"Unusable since it was checked, another image is in its place: {place}: {reason}")

    def explained(self) -> str:
        """The error, in one line, where there are too many."""
        place, reason = list(self.found.values())[-1]
        line = f"unusable since it was checked: {place}: {reason}"
        if self.limit is None:
            return line
        line += f" (bad images: {self.before} before, {len(self.found)} since; data.max_bad_images {self.limit})"
        return f"{line}; no other can be read" if self.are_all else line
