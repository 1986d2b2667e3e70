"""Choose the images among the files of a folder or archive, and count the files that are excluded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from tfinpaint.data.images.signatures import describe_content, image_format, unsupported_format
from tfinpaint.data.images.unreadable import UnreadableImageError, is_resource_shortage
from tfinpaint.data.listing.walk import extension_of, has_image_extension, printable
from tfinpaint.system.parallel import parallel_map_blocks
from tfinpaint.system.wording import counted

MAX_KINDS = 50  # kinds of files that are counted separately
_BLOCK = 4096  # names that are processed together

UNREADABLE, BESIDE_CLASSES = "cannot be read", "beside the class folders"


@dataclass
class ExcludedFiles:
    """The files of a folder that are not used.

    Attributes:
        kinds: (extension, reason, or "" for what is not an image) -> (count, first file).
        hidden: count of hidden files and folders, and of those that operating systems create.
    """

    kinds: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    hidden: int = 0

    def __len__(self) -> int:
        return sum(count for count, _ in self.kinds.values())

    def add(self, path: str, reason: str = "", count: int = 1) -> None:
        """Count a file, or several of one kind, of which `path` is the first."""
        kind = (extension_of(path), reason)
        if kind not in self.kinds and len(self.kinds) >= MAX_KINDS:
            kind = ("others", "")
        before, example = self.kinds.get(kind, (0, path))
        self.kinds[kind] = (before + count, example)

    def merge(self, other: ExcludedFiles) -> None:
        """Count the files of another folder too."""
        self.hidden += other.hidden
        for (_, reason), (count, example) in other.kinds.items():
            self.add(example, reason, count)

    def summary(self) -> str:
        """Return such as "2 files excluded: 1 .txt (notes.txt), 1 .csv (a/b.csv)"; "" where no file is excluded."""
        parts = []
        ordered = sorted(self.kinds.items(), key=lambda item: (-item[1][0], item[0]))
        for (extension, reason), (count, example) in ordered:
            kind, first = f"{count} {printable(extension) or 'without an extension'}", printable(example)
            more = ", ..." if count > 1 else ""
            because = f": {reason}" if reason else ""
            parts.append(f"{kind} ({first}{more}{because})")
        files = f"{counted(len(self), 'file')} excluded: {', '.join(parts)}" if parts else ""
        hidden = f"{counted(self.hidden, 'hidden or system file')} ignored" if self.hidden else ""
        return "; ".join(filter(None, (files, hidden)))

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps([self.hidden, [[*kind, *found] for kind, found in self.kinds.items()]])

    @classmethod
    def from_json(cls, text: str | bytes) -> ExcludedFiles:
        """Return the files that `to_json` was called with. Raises ValueError or TypeError for any other text."""
        hidden, kinds = json.loads(text)
        return cls({(extension, reason): (count, example) for extension, reason, count, example in kinds}, hidden)


def choose_images(
    names: Iterable[str], read_head: Callable[[str], bytes], on_excluded: Callable[[str, str], None]
) -> Iterator[str]:
    """Yield the names of the images, in the given order.

    A file with the extension of an image counts as one and is not opened; for all others the first bytes decide.

    Args:
        read_head: returns the first bytes of a file, called from several threads; raises OSError or
            UnreadableImageError.
        on_excluded: called with the name of every other file, and the reason why an image is not used, or "".
    """
    left = iter(names)
    while block := list(islice(left, _BLOCK)):
        unknown = [name for name in block if not has_image_extension(name)]
        found = parallel_map_blocks(lambda name: _exclusion_reason(name, read_head), unknown) if unknown else ()
        reasons = dict(zip(unknown, found, strict=True))
        for name in block:
            reason = reasons.get(name)
            if reason is None:
                yield name
            else:
                on_excluded(name, reason)


def _exclusion_reason(name: str, read_head: Callable[[str], bytes]) -> str | None:
    """Return why a file is not used, "" for what is not an image; None for an image."""
    try:
        head = read_head(name)
    except (OSError, UnreadableImageError) as error:
        if is_resource_shortage(error):
            raise
        return UNREADABLE
    if kind := unsupported_format(head, extension_of(name)):
        return f"{kind} is not supported; convert to JPEG"
    if image_format(head):
        return None
    content = describe_content(head)
    return f"{content}; unpack it" if content.endswith("archive") else ""


def multiple_pictures_message(count: int, example: str) -> str:
    """Return a log line about files with several pictures, of which only the first is used."""
    files = "1 file contains" if count == 1 else f"{count} files contain"
    return f"{files} several pictures (pages or frames); only the first is used, such as {printable(example)}"
