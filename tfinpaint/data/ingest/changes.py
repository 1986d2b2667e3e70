"""Compare a source of images with what `prepare` has made of it: which images only one of them has, or are others."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.data.ingest.layout import UNDIVIDED, class_of, find_roots, root_of
from tfinpaint.data.ingest.source import Source, open_source
from tfinpaint.data.ingest.split import SIDES, readable
from tfinpaint.data.records.reader import is_records

MOST_READ = 2_000  # images that only the source has are read, to leave out unreadable ones; of more, none is

Sizes = dict[tuple[str, str], int]  # side, <class>/<file> -> bytes


@dataclass(frozen=True)
class Changes:
    """How prepared images differ from their source.

    Attributes:
        lacking: class -> number of images that only the source has.
        more, changed: numbers of images that only the prepared ones have, and of those that have another size there.
    """

    lacking: Mapping[str, int]
    more: int
    changed: int

    def __bool__(self) -> bool:
        return bool(self.lacking or self.more or self.changed)


def changes_since(source: Path, dest: Path) -> Changes:
    """Return how prepared images differ from their source. Names and sizes are compared.

    An archive that is older than the prepared images is not opened, and records are not compared.

    Raises:
        UserError: The source can no longer be prepared.
    """
    is_older = source.is_file() and source.stat().st_mtime <= dest.stat().st_mtime
    if is_older or any(is_records(dest / side) for side in SIDES):
        return Changes({}, 0, 0)
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_source(source, Path(scratch)) as opened,
        open_source(dest, Path(scratch)) as prepared,
    ):
        roots, _ = find_roots(opened)
        before = _prepared(prepared, is_divided=UNDIVIDED not in roots)
        paths = {
            (side, f"{class_of(path)}/{path.rpartition('/')[2]}"): path
            for side, root in roots.items()
            for path in opened.images
            if root_of(path) == root
        }
        lacking = _usable(opened, [path for place, path in paths.items() if place not in before])
        changed = sum(place in before and opened.state(path)[0] != before[place] for place, path in paths.items())
    return Changes(Counter(map(class_of, lacking)), len(before.keys() - paths.keys()), changed)


def _prepared(dest: Source, *, is_divided: bool) -> Sizes:
    """Return the sizes of the prepared images, of one side where the source is not divided."""
    places = [(name, *name.partition("/")[::2]) for name in dest.images]
    return {(side if is_divided else UNDIVIDED, rest): dest.state(name)[0] for name, side, rest in places}


def _usable(source: Source, paths: list[str]) -> Iterable[str]:
    """Return the images that `prepare` would use, where there are not too many to read them."""
    return readable(source, paths) if 0 < len(paths) <= MOST_READ else paths
