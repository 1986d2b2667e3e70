"""Find the class folders of a source, and whether it is already divided into training and testing."""

from __future__ import annotations

from collections import defaultdict

from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.ingest.source import Source
from tfinpaint.errors import UserError
from tfinpaint.system.wording import counted

UNDIVIDED = ""
# The names of folders, in lower case, by which a divided source is recognised -> side.
_SIDES = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("testing", "test"), "testing"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
}

# A folder whose subfolders may be classes, "" for the top -> (class, file) of each image in them.
Candidates = dict[str, set[tuple[str, str]]]


def folder_of(path: str) -> str:
    """Return the folder of an image, "" for the top."""
    return path.rpartition("/")[0]


def class_of(path: str) -> str:
    """Return the name of the folder of an image, "" for the top."""
    return folder_of(path).rpartition("/")[2]


def root_of(path: str) -> str | None:
    """Return the folder that contains an image's class folder ("" for the top); None for an image at the top."""
    folder = folder_of(path)
    return folder.rpartition("/")[0] if folder else None


def find_roots(source: Source) -> tuple[dict[str, str], list[str]]:
    """Find the folders whose subfolders are the classes.

    If a source contains the same data twice, as some archives of Kaggle do, they are used once.

    Returns:
        (side -> folder, with `UNDIVIDED` as the only side of a source that is not divided; lines for the report).

    Raises:
        UserError: there are no class folders, or they are at several places.
    """
    candidates: Candidates = defaultdict(set)
    for path in source.images:
        if (root := root_of(path)) is not None:
            candidates[root].add((class_of(path), path.rpartition("/")[2]))
    if not candidates:
        raise UserError(_no_classes_message(source))
    candidates, notes = _without_unlabelled(candidates)
    # An image beside class folders makes their parent look like a class; that image is excluded.
    candidates = {
        root: found
        for root, found in candidates.items()
        if not all(_join(root, name) in candidates for name, _ in found)
    }
    if divided := _find_divided(source, candidates, notes):
        kept = ", ".join(f"{folder} for {side}" for side, folder in divided.items())
        return divided, [*notes, f"{source.path} is already divided, and its division is kept: {kept}"]
    root = _only_one(source, [(root, [root], _relative(root, candidates, [root])) for root in candidates], notes)[0]
    if all(name.lower() in _SIDES for name, _ in candidates[root]):
        names = " and ".join(sorted({name for name, _ in candidates[root]}))
        raise UserError(
            f"{source.path}: {names} contain images but no class folders; expected {source.path.name}/<class>/<image>, "
            "or training/<class>/<image> and testing/<class>/<image>"
        )
    return {UNDIVIDED: root}, notes


def _no_classes_message(source: Source) -> str:
    """Return why a source without images in class folders cannot be divided, and what to do."""
    found = source.excluded_below().summary()
    expected = f"expected {source.path.name}/<class>/<image>{f' ({found})' if found else ''}"
    if not source.images:
        return f"{source.path}: no images in it; {expected}"
    images = counted(len(source.images), "image")
    pretraining = (
        f"set data.input_path: {source.path}" if source.path.is_dir() else "unpack it, and set data.input_path"
    )
    return (
        f"{source.path}: {images}, but no class folders; {expected}. Pretraining needs neither classes nor `prepare`: "
        f"{pretraining}"
    )


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _without_unlabelled(candidates: Candidates) -> tuple[Candidates, list[str]]:
    """Exclude images without class folders if another side has them, as in the test sets of competitions."""
    kept, notes = {}, []
    for parent, found in candidates.items():
        names = {name for name, _ in found if name.lower() in _SIDES}
        siblings = [root.rpartition("/") for root in candidates]
        is_divided = any(folder == parent and name.lower() in _SIDES for folder, _, name in siblings)
        if names and is_divided:
            for name in sorted(name for name in names if _join(parent, name) not in candidates):
                count = sum(folder == name for folder, _ in found)
                notes.append(f"{_join(parent, name)}: {counted(count, 'image')} without class folders, excluded")
            found = {pair for pair in found if pair[0] not in names}
        if found:
            kept[parent] = found
    return kept, notes


def _find_divided(source: Source, candidates: Candidates, notes: list[str]) -> dict[str, str]:
    """Return side -> folder of a source that is already divided; {} for others."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for root in sorted(candidates):
        parent, _, name = root.rpartition("/")
        side = _SIDES.get(name.lower())
        if side and (before := groups[parent].get(side)):
            raise UserError(f"{source.path}: {before} and {root} are both for {side}; remove one of them")
        if side:
            groups[parent][side] = root
    groups = {parent: sides for parent, sides in groups.items() if len(sides) > 1}
    if not groups:
        return {}
    choices = [(parent, list(sides.values())) for parent, sides in groups.items()]
    used = {root for _, roots in choices for root in roots}
    choices += [(root, [root]) for root in candidates if root not in used]
    roots = _only_one(source, [(top, roots, _relative(top, candidates, roots)) for top, roots in choices], notes)
    sides = {_SIDES[root.rpartition("/")[2].lower()]: root for root in roots}
    if "training" not in sides:
        raise UserError(f"{source.path}: found {' and '.join(sorted(roots))}, but no training folder")
    if "testing" not in sides:
        sides["testing"] = sides.pop("validation")
    return {side: sides[side] for side in ("training", "testing", "validation") if side in sides}


def _relative(parent: str, candidates: Candidates, roots: list[str]) -> set[str]:
    """Return the images in the class folders of some roots, as paths relative to their parent."""
    return {
        f"{root[len(parent) :].lstrip('/')}/{name}/{file}".lstrip("/")
        for root in roots
        for name, file in candidates[root]
    }


def _only_one(source: Source, choices: list[tuple[str, list[str], set[str]]], notes: list[str]) -> list[str]:
    """Return the roots of the choice (parent, roots, images) that is highest; the others must be copies of it."""
    choices = sorted(choices, key=lambda choice: (choice[0].count("/") + bool(choice[0]), choice[:2]))
    first, *others = choices
    for parent, _, images in others:
        if parent == first[0] or images != first[2] or not _are_copies(source, first[0], parent, images):
            folders = [root or "." for _, roots, _ in choices[:5] for root in roots]
            unpack = "" if source.path.is_dir() else "unpack it, and "
            raise UserError(
                f"{source.path}: class folders at several places ({', '.join(folders)}); {unpack}name one of them in "
                f"place of {source.path}, such as {source.path / folders[0] if not unpack else folders[0]}"
            )
    if others:
        places = ", ".join(parent or "." for parent, _, _ in choices[:5])
        notes.append(f"The same images are at {len(choices)} places ({places}); they are used once")
    return first[1]


def _are_copies(source: Source, first: str, second: str, images: set[str]) -> bool:
    """Return True if the images of two folders have the same contents."""
    try:
        return all(
            source.state(one)[0] == source.state(other)[0] and source.read(one) == source.read(other)
            for one, other in ((_join(first, image), _join(second, image)) for image in sorted(images))
        )
    except UnreadableImageError:
        return False
