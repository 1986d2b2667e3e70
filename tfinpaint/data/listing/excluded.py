"""Which files of a folder or archive are images, by their names or first bytes; the others are counted by ending."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from tfinpaint.data.images.signatures import begins_as, unsupported_format
from tfinpaint.data.listing.walk import ending_of, in_one_line, is_image
from tfinpaint.system.parallel import parallel_map_blocks

MOST_KINDS = 50  # that are counted apart
_BLOCK = 4096  # names looked at together

_REMEDY = "is not supported; convert to JPEG"
UNREADABLE, BESIDE_CLASSES = "cannot be read", "beside the class folders"


class Skipped:
    """The files of a folder that are not used.

    Attributes:
        kinds: (ending, why, or "" for what is no image) -> (how many, the first of them).
        debris: how many hidden files and folders there are, and files that operating systems leave behind.
    """

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], tuple[int, str]] = {}
        self.debris = 0

    def __len__(self) -> int:
        return sum(count for count, _ in self.kinds.values())

    def add(self, path: str, why: str = "", count: int = 1) -> None:
        """Count a file, or several of one kind, of which `path` is the first."""
        kind = (ending_of(path), why)
        if kind not in self.kinds and len(self.kinds) >= MOST_KINDS:
            kind = ("others", "")
        before, example = self.kinds.get(kind, (0, path))
        self.kinds[kind] = (before + count, example)

    def merge(self, other: Skipped) -> None:
        """Count the files of another folder too."""
        self.debris += other.debris
        for (_, why), (count, example) in other.kinds.items():
            self.add(example, why, count)

    def line(self) -> str:
        """Return what was skipped, such as "2 files skipped: 1 .txt (notes.txt), 1 .csv (a/b.csv)"; "" for none."""
        parts = []
        for (ending, why), (count, example) in sorted(self.kinds.items(), key=lambda item: (-item[1][0], item[0])):
            named, first = f"{count} {in_one_line(ending) or 'without an ending'}", in_one_line(example)
            more = ", ..." if count > 1 else ""
            parts.append(f"{named} ({why}) such as {first}" if why else f"{named} ({first}{more})")
        words = f"{len(self)} file{'s' * (len(self) != 1)} skipped: {', '.join(parts)}" if parts else ""
        debris = f"{self.debris} hidden or system file{'s' * (self.debris != 1)} ignored" if self.debris else ""
        return "; ".join(filter(None, (words, debris)))

    def to_json(self) -> str:
        return json.dumps([self.debris, [[*kind, *found] for kind, found in self.kinds.items()]])

    @classmethod
    def of_json(cls, text: str | bytes) -> Skipped:
        """Return what `to_json` has written. Raises ValueError."""
        skipped = cls()
        debris, kinds = _checked(json.loads(text))
        skipped.debris = debris
        for ending, why, count, example in kinds:
            skipped.kinds[(ending, why)] = (count, example)
        return skipped


def _checked(value: Any) -> tuple[int, list[tuple[str, str, int, str]]]:
    try:
        debris, kinds = value
        return int(debris), [(str(ending), str(why), int(count), str(example)) for ending, why, count, example in kinds]
    except TypeError as error:
        raise ValueError(str(error)) from None


def choose_images(
    names: Iterable[str], read_head: Callable[[str], bytes], on_skipped: Callable[[str, str], None]
) -> Iterator[str]:
    """Yield the names of the images, in the given order.

    A name that ends as an image's does is not looked at further: whoever reads the images finds out what is in it. Of
    all other files the first bytes decide.

    Args:
        read_head: from a name to the file's first bytes; threads may call it. Raises OSError.
        on_skipped: called with the name of every other file, and why an image is not used, or "".
    """
    left = iter(names)
    while block := list(islice(left, _BLOCK)):
        unknown = [name for name in block if not is_image(name)]
        looks = parallel_map_blocks(lambda name: _why_not(name, read_head), unknown) if unknown else ()
        reasons = dict(zip(unknown, looks, strict=True))
        for name in block:
            why = reasons.get(name)
            if why is None:
                yield name
            else:
                on_skipped(name, why)


def _why_not(name: str, read_head: Callable[[str], bytes]) -> str | None:
    """Why a file is not used, "" for what is no image; None for an image."""
    try:
        head = read_head(name)
    except OSError:
        return UNREADABLE
    kind = unsupported_format(head, ending_of(name))
    if kind:
        return f"{kind} {_REMEDY}"
    return None if begins_as(head) else ""


def more_in_words(count: int, example: str) -> str:
    """Return the line that tells of files with several pictures, of which only the first is used."""
    return (
        f"{count} file{'s' * (count != 1)} of several pictures (pages, or an animation), of which the first is taken, "
        f"such as {in_one_line(example)}"
    )
