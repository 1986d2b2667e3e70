"""Where in a source its class folders are, and whether it is divided into training and testing already."""

from __future__ import annotations

from collections import defaultdict

from tfinpaint.data.images.decode import is_of_the_process
from tfinpaint.data.ingest.source import UNREADABLE, Source
from tfinpaint.errors import UserError

UNDIVIDED = ""
# Folders that say that a source is divided already: name in lower case -> side.
_SIDES = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("testing", "test"), "testing"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
}

Below = dict[str, set[tuple[str, str]]]  # folder -> (class, file) of the images in its subfolders


def folder_of(path: str) -> str:
    """Return the folder that an image lies in, "" for none."""
    return path.rpartition("/")[0]


def class_of(path: str) -> str:
    """Return the name of the folder that an image lies in, "" for none."""
    return folder_of(path).rpartition("/")[2]


def root_of(path: str) -> str | None:
    """Return the folder of an image's class folder ("" for the top); None for an image that lies in no folder."""
    folder = folder_of(path)
    return folder.rpartition("/")[0] if folder else None


def find_roots(origin: Source) -> tuple[dict[str, str], list[str]]:
    """Find the folders whose subfolders are the classes.

    The same data twice in a source (as in some of Kaggle's archives) is taken once.

    Returns:
        (side -> folder, with `UNDIVIDED` for the only side of a source that is not divided; what is worth knowing).

    Raises:
        UserError: there are no class folders, or they are at several places.
    """
    below: Below = defaultdict(set)
    for path in origin.images:
        if (root := root_of(path)) is not None:
            below[root].add((class_of(path), path.rpartition("/")[2]))
    if not below:
        found = origin.skipped_below().line()
        raise UserError(
            f"{origin.path}: no class folders with images; expected {origin.path.name}/<class>/<image>"
            f"{f' ({found})' if found else ''}"
        )
    below, notes = _without_unlabelled(below)
    # An image beside class folders makes their parent look like a class: that is no root but an image to skip.
    below = {root: found for root, found in below.items() if not _are_roots(root, found, below)}
    if divided := _find_divided(origin, below, notes):
        kept = ", ".join(f"{folder} for {side}" for side, folder in divided.items())
        return divided, [*notes, f"{origin.path} is divided already, and stays so: {kept}"]
    root = _only_one(origin, [(root, [root], _relative(root, below, [root])) for root in below], notes)[0]
    if all(name.lower() in _SIDES for name, _ in below[root]):
        names = " and ".join(sorted({name for name, _ in below[root]}))
        raise UserError(
            f"{origin.path}: {names} hold images but no class folders; expected {origin.path.name}/<class>/<image>, or "
            "training/<class>/<image> and testing/<class>/<image>"
        )
    return {UNDIVIDED: root}, notes


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _are_roots(root: str, found: set[tuple[str, str]], below: Below) -> bool:
    return all(_join(root, name) in below for name, _ in found)


def _without_unlabelled(below: Below) -> tuple[Below, list[str]]:
    """Leave out images without class folders beside a side that has them, as in the test sets of competitions."""
    kept, notes = {}, []
    for parent, found in below.items():
        names = {name for name, _ in found if name.lower() in _SIDES}
        siblings = [root.rpartition("/") for root in below]
        is_divided = any(folder == parent and name.lower() in _SIDES for folder, _, name in siblings)
        if names and is_divided:
            for name in sorted(name for name in names if _join(parent, name) not in below):
                count = sum(folder == name for folder, _ in found)
                notes.append(f"{_join(parent, name)}: {count} images without class folders, left out")
            found = {pair for pair in found if pair[0] not in names}
        if found:
            kept[parent] = found
    return kept, notes


def _find_divided(origin: Source, below: Below, notes: list[str]) -> dict[str, str]:
    """Side -> folder of a source that is divided already; {} for others."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for root in sorted(below):
        parent, _, name = root.rpartition("/")
        side = _SIDES.get(name.lower())
        if side and (before := groups[parent].get(side)):
            raise UserError(f"{origin.path}: {before} and {root} are both for {side}; remove one of them")
        if side:
            groups[parent][side] = root
    groups = {parent: sides for parent, sides in groups.items() if len(sides) > 1}
    if not groups:
        return {}
    candidates = [(parent, list(sides.values())) for parent, sides in groups.items()]
    used = {root for _, roots in candidates for root in roots}
    candidates += [(root, [root]) for root in below if root not in used]
    roots = _only_one(origin, [(parent, roots, _relative(parent, below, roots)) for parent, roots in candidates], notes)
    sides = {_SIDES[root.rpartition("/")[2].lower()]: root for root in roots}
    if "training" not in sides:
        raise UserError(f"{origin.path}: {' and '.join(sorted(roots))} are there, but no training folder")
    if "testing" not in sides:
        sides["testing"] = sides.pop("validation")
    return {side: sides[side] for side in ("training", "testing", "validation") if side in sides}


def _relative(parent: str, below: Below, roots: list[str]) -> set[str]:
    """The images in class folders of these folders, as paths relative to their parent."""
    return {
        f"{root[len(parent) :].lstrip('/')}/{name}/{file}".lstrip("/") for root in roots for name, file in below[root]
    }


def _only_one(origin: Source, candidates: list[tuple[str, list[str], set[str]]], notes: list[str]) -> list[str]:
    """The folders of the candidate (parent, folders, images) that is least deep; the others must be copies of it."""
    candidates = sorted(candidates, key=lambda candidate: (candidate[0].count("/") + bool(candidate[0]), candidate[:2]))
    first, *others = candidates
    for parent, _, images in others:
        if parent == first[0] or images != first[2] or not _are_copies(origin, first[0], parent, images):
            found = ", ".join(root or "." for _, roots, _ in candidates[:5] for root in roots)
            raise UserError(f"{origin.path}: class folders at several places ({found}); give one of them as SOURCE")
    if others:
        places = ", ".join(parent or "." for parent, _, _ in candidates[:5])
        notes.append(f"The same images are at {len(candidates)} places ({places}); they are taken once")
    return first[1]


def _are_copies(origin: Source, first: str, second: str, images: set[str]) -> bool:
    """Whether the images of two folders have the same contents."""
    try:
        return all(
            origin.state(one)[0] == origin.state(other)[0] and origin.read(one) == origin.read(other)
            for one, other in ((_join(first, image), _join(second, image)) for image in sorted(images))
        )
    except UNREADABLE as error:
        if is_of_the_process(error):
            raise
        return False
