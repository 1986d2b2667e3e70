"""Replace images that become unreadable during training by other images, up to a limit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from tfinpaint.data.examples import Images, allocate_pixels
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.system.activity import report_activity

log = logging.getLogger(__name__)

MOST_NAMED = 20  # bad images that each rank names in the log


@dataclass
class Failures:
    """The examples of a rank's share that became unreadable after the initial check.

    In training each is replaced by the next readable example of the share, until there are too many. The replacement
    depends only on the example, not on the time at which a thread reads it.

    Attributes:
        limit: `data.max_bad_images`; None: none may fail, as in evaluation, where a replacement would change scores.
        before: bad images that count as well: those of the initial check and those of other ranks.
        found: example -> (its file, the reason).
        none_left: no image of the share can be read.
    """

    limit: int | None = None
    before: int = 0
    found: dict[int, tuple[str, str]] = field(default_factory=dict)
    none_left: bool = False

    @property
    def exceed_limit(self) -> bool:
        """True if more images have failed than the limit allows."""
        return bool(self.found) and self.before + len(self.found) > (self.limit or 0)

    def read(self, sides: Sequence[Images], index: int) -> tuple[int, list[np.ndarray]]:
        """Return (example, its image on each side) of this example, or of its replacement. Threads may call it.

        Args:
            sides: the inputs, and perhaps the targets.

        Raises:
            UnreadableImageError: too many images cannot be read, or none can.
        """
        share, total = sides[0].share, len(sides[0].listing)
        for candidate in chain(range(index, total, share.count), range(share.index, index, share.count)):
            if self.exceed_limit:
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
            self.none_left = True
        raise UnreadableImageError("no replacement for an unreadable image")

    def read_all(self, sides: Sequence[Images], indices: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return what `read` returns, of several examples: int64 [examples], and the images of each side.

        Args:
            sides: as for `read`; each decodes its images to one size.
            indices: int64 [examples].

        Returns:
            The images are uint8 arrays [examples, height, width, channels], whose memory TensorFlow can share.

        Raises:
            UnreadableImageError: as `read`.
        """
        examples = np.empty(len(indices), np.int64)
        batches = [allocate_pixels(len(indices), side.preprocessing.decoding) for side in sides]
        for place, index in enumerate(indices):
            examples[place], pixels = self.read(sides, int(index))
            for batch, image in zip(batches, pixels, strict=True):
                batch[place] = image
        return examples, batches

    def _add(self, index: int, place: str, reason: str) -> None:
        entry = place, reason
        is_new = self.found.setdefault(index, entry) is entry  # if two threads find it, one of them logs it
        if is_new and not self.exceed_limit and len(self.found) <= MOST_NAMED:
            log.warning(f"Image became unreadable after the initial check; using a replacement: {place}: {reason}")

    def message(self) -> str:
        """Return the error message, in one line, if there are too many failures."""
        place, reason = list(self.found.values())[-1]
        line = f"{place}: became unreadable after the initial check: {reason}"
        if self.limit is None:
            return line
        line += f" (bad images: {self.before} before, {len(self.found)} now; data.max_bad_images {self.limit})"
        return f"{line}; no readable image is left" if self.none_left else line
