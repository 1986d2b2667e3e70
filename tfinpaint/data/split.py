"""Dividing class folders into training and testing: stratified, seeded, every image checked."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.data.decode import CHECK, UnreadableImageError, is_of_the_process, read_image
from tfinpaint.data.origin import Origin, ReadFile
from tfinpaint.data.progress import tell_progress
from tfinpaint.data.sources import path_hash
from tfinpaint.data.threads import in_threads
from tfinpaint.data.tree import is_image
from tfinpaint.errors import UserError

SIDES = ("training", "testing")
UNREADABLE = (UnreadableImageError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Split:
    """What goes where.

    Attributes:
        sides: "training" and "testing" -> (path in the origin, `<class>/<file>`) of each image.
        counts: class -> (images in training, images in testing).
        stray: files passed over because they are not images of a class.
        bad: (path in the origin, reason) of each image that could not be decoded; they are left out.
    """

    sides: dict[str, list[tuple[str, str]]]
    counts: dict[str, tuple[int, int]]
    stray: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]


def split_classes(origin: Origin, test_fraction: float, seed: int) -> Split:
    """Divide each class alike. It depends on the seed and the files' contents; copies of a file stay on one side.

    Raises:
        UserError: there are no class folders or just one, they are at several places, or a class has too few images.
    """
    images = [path for path in origin.names if is_image(path)]
    root = _class_root(origin.path, images)
    members = [path for path in images if _places(path)[:1] == (root,)]
    digests, bad = _check(origin.path, members, origin.read)
    by_class: dict[str, list[str]] = {_places(path)[1]: [] for path in members}
    for path in digests:
        by_class[_places(path)[1]].append(path)
    if len(by_class) < 2:
        raise UserError(f"{origin.path}: found one class only ({', '.join(by_class)}); a classifier needs at least two")
    counts = {}
    sides: dict[str, list[tuple[str, str]]] = {side: [] for side in SIDES}
    for name, files in sorted(by_class.items()):
        tests = _sort_for_split(files, digests, test_fraction, seed)
        if tests is None:
            lines = [f"{path}: {reason}" for path, reason in bad if _places(path)[1] == name]
            problem = f"{origin.path}: class {name} has {len(files)} readable image(s); a split needs 2 different ones"
            raise UserError("\n".join([problem, *lines]))
        for side, chosen in (("testing", files[:tests]), ("training", files[tests:])):
            sides[side] += [(path, "/".join(_places(path)[1:])) for path in chosen]
        counts[name] = (len(files) - tests, tests)
    used = set(members)
    return Split(sides, counts, tuple(path for path in origin.names if path not in used), bad)


def _places(path: str) -> tuple[str, ...]:
    """(folder of the class folder, class, file); () for a file that lies in no folder."""
    folder, _, file = path.rpartition("/")
    root, _, name = folder.rpartition("/")
    return (root, name, file) if folder else ()


def _sort_for_split(files: list[str], digests: dict[str, str], test_fraction: float, seed: int) -> int | None:
    """Put a class's files into random order; the first so many, which is returned, are for testing.

    Copies of one file stand together, and the boundary never falls between them. None where nothing can be split.
    """
    files.sort(key=lambda path: (path_hash(seed, digests[path]), path))
    wanted = max(1, round(test_fraction * len(files)))
    boundaries = [i for i in range(1, len(files)) if digests[files[i]] != digests[files[i - 1]]]
    return min(boundaries, key=lambda i: abs(i - wanted), default=None)


def _class_root(source: Path, images: Sequence[str]) -> str:
    """The folder whose subfolders are the classes. The same data twice in a source (Kaggle's archive) is taken once."""
    below: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for path in images:
        if places := _places(path):
            below[places[0]].add(places[1:])
    if not below:
        raise UserError(f"{source}: no class folders with images; expected {source.name}/<class>/<image>")
    # An image beside class folders makes their parent look like a class: that is no root but a stray image.
    below = {root: found for root, found in below.items() if not _are_roots(root, found, below)}
    roots = sorted(below, key=lambda root: (root.count("/") + bool(root), root))
    if any(below[root] != below[roots[0]] for root in roots[1:]):
        found = ", ".join(root or "." for root in roots[:5])
        raise UserError(f"{source}: class folders at several places ({found}); give one of them as SOURCE")
    return roots[0]


def _are_roots(root: str, found: set[tuple[str, ...]], below: dict[str, set[tuple[str, ...]]]) -> bool:
    return all((f"{root}/{name}" if root else name) in below for name, _ in found)


def _check(source: Path, paths: Sequence[str], read: ReadFile) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """Decode every file once: (digest of each good file's contents, (path, reason) of each bad one)."""

    def check(path: str) -> tuple[str, str]:
        try:
            contents = read(path)
            read_image(io.BytesIO(contents), CHECK)
        except UNREADABLE as error:
            if is_of_the_process(error):
                raise
            return "", str(error)
        return hashlib.sha256(contents).hexdigest(), ""

    results = tell_progress(in_threads(check, paths), len(paths), f"Checking the images of {source}")
    digests, bad = {}, []
    for path, (digest, reason) in zip(paths, results, strict=True):
        if digest:
            digests[path] = digest
        else:
            bad.append((path, reason))
    return digests, tuple(bad)
