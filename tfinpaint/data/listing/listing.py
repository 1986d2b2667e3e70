"""Folders of images, plain or packed into records -> sorted listings and decoded pixels. No TensorFlow."""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from tfinpaint.data.images.decode import FORMATS, Reading, UnreadableImageError, look_at_image, read_image
from tfinpaint.data.images.signatures import begins_as, read_head, what_it_is
from tfinpaint.data.listing import walk
from tfinpaint.data.listing.duplicates import print_of, width_of
from tfinpaint.data.listing.excluded import BESIDE_CLASSES, Skipped
from tfinpaint.data.listing.folder_cache import list_folder
from tfinpaint.data.listing.names import Names
from tfinpaint.data.records.reader import Records, is_records, open_records
from tfinpaint.errors import UserError
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.progress import log_progress


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a folder, in sorted order, so that an index means the same file on every rank.

    Attributes:
        root: the folder.
        paths: image paths relative to `root`, POSIX.
        labels: int32, class index of each path; all 0 for a listing without classes.
        classes: class names in sorted order; () for a listing without classes.
        skipped: the files that are not used.
        records: what the images are read from; None for files of their own.
    """

    root: Path
    paths: Names
    labels: np.ndarray
    classes: tuple[str, ...]
    skipped: Skipped
    records: Records | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Sequence[int] | np.ndarray) -> Listing:
        """The listing of these indices alone, in the given order."""
        indices = np.asarray(indices, np.int64)
        return replace(self, paths=self.paths.select(indices), labels=self.labels[indices])

    def open(self, index: int) -> str | io.BytesIO:
        """What `read_image` takes.

        Raises:
            UnreadableImageError: the records are damaged there.
        """
        if self.records:
            return io.BytesIO(self.records.read(self.paths.row(index)))
        return os.path.join(self.root, self.paths[index])

    def place(self, index: int) -> str:
        """Where an image is found, for messages: in one line, with no characters that a terminal obeys."""
        place = os.path.join(self.root, self.paths[index])
        if self.records:
            place = self.records.place(self.paths.row(index))
        return walk.in_one_line(place)

    def state(self, index: int) -> str | None:
        """What changes with an image's contents, of little cost; None where that cannot be told."""
        if self.records:
            return self.records.state(self.paths.row(index))
        try:
            status = os.stat(os.path.join(self.root, self.paths[index]))  # noqa: PTH116
        except OSError:
            return None
        return f"{status.st_size} {status.st_mtime_ns}"


def _open(root: Path) -> tuple[Names, Skipped, Records | None]:
    """(image paths, the other files, records if the folder holds them)."""
    if is_records(root):
        records = open_records(root)
        return records.names, Skipped(), records
    index = list_folder(root)
    return index.images, index.skipped, None


def list_images(root: Path, *, single: bool = False) -> Listing:
    """List all images below a folder, without classes.

    Args:
        single: an image file is taken as well, for a folder of that one image.

    Raises:
        UserError: there is no such folder, or no image in it; or its records cannot be used.
    """
    if root.is_file():
        return _list_file(root, single)
    paths, skipped, records = _open(root)
    if not paths:
        raise UserError(_without_images(root, skipped))
    return Listing(root, paths, np.zeros(len(paths), np.int32), (), skipped, records)


def _list_file(file: Path, single: bool) -> Listing:
    try:
        head = read_head(str(file))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    if begins_as(head) and single:
        return Listing(file.parent, Names.of([file.name]), np.zeros(1, np.int32), (), Skipped())
    found = f"is {what_it_is(head)}" if what_it_is(head) else "is a single image" if begins_as(head) else "is a file"
    unpack = "; unpack it with `tfinpaint prepare`" if "archive" in found or head[257:262] == b"ustar" else ""
    raise UserError(f"{file}: {found}; expected {'an image or ' if single else ''}a folder of images{unpack}")


def _without_images(root: Path, skipped: Skipped) -> str:
    found = f" ({skipped.line()})" if skipped.line() else ""
    return f"{root}: no images found; expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]} files{found}"


def list_class_folders(root: Path, classes: Sequence[str] | None = None, tag: str | None = None) -> Listing:
    """The images of `root/<class>/...`; the class is the name of the first folder.

    Args:
        root: folder of class folders. Images that lie beside the class folders are skipped.
        classes: the classes to expect (those of the training folder); None takes every folder for a class.
        tag: the class is the folder below the one of this name, wherever that is in the images' paths.

    Raises:
        UserError: no such folder, a class without images, fewer than two classes, or a class not in `classes`; or its
            records cannot be used.
    """
    if root.is_file():
        _list_file(root, single=False)
    paths, skipped, records = _open(root)
    numbers, number_of = _number_classes(root, paths, tag)
    found = sorted(numbers) if tag or records else walk.class_folders(root)
    if tag and not found:
        raise UserError(f"{root}: no image lies in a folder below one named {tag!r}")
    if empty := sorted(set(found) - set(numbers)):
        named = ", ".join(_emptiness(root, name) for name in empty[:20]) + ", ..." * (len(empty) > 20)
        raise UserError(f"{root}: class folder without images: {named}; fill it or remove it")
    if classes is None and len(found) < 2:
        raise UserError(
            f"{root}: a classifier needs at least two class folders, found {len(found)}"
            + (f" ({found[0]})" if found else "")
        )
    walk.check_class_names(root, found)
    names = list(classes) if classes is not None else found
    if unknown := [name for name in found if name not in names]:
        raise UserError(f"{root}: class {', '.join(unknown)} is not among the training classes: {', '.join(names)}")
    inside = number_of >= 0
    outside = len(inside) - int(np.count_nonzero(inside))
    if outside == len(inside):
        raise UserError(_without_images(root, skipped) + ", one folder of them per class")
    index = {name: i for i, name in enumerate(names)}
    if outside:
        skipped.add(paths[int(np.argmin(inside))], BESIDE_CLASSES, outside)
        paths, number_of = paths.select(np.flatnonzero(inside)), number_of[inside]
    labels = np.array([index[name] for name in numbers], np.int32)[number_of]
    return Listing(root, paths, labels, tuple(names), skipped, records)


def _emptiness(root: Path, name: str) -> str:
    """A class without images, and what is there instead."""
    line = list_folder(root / name).skipped.line()
    return f"{name} ({line or 'empty'})"


def has_class_folders(root: Path) -> bool:
    """Whether there is a folder in the folder, or in what was packed.

    Raises:
        UserError: the folder's records cannot be used.
    """
    if is_records(root):
        return any("/" in path for path in open_records(root).names)
    return root.is_dir() and bool(walk.class_folders(root))


def _number_classes(root: Path, paths: Names, tag: str | None) -> tuple[dict[str, int], np.ndarray]:
    """(class -> number in order of appearance, int32 number of each path; -1 for one that is in no class folder)."""
    numbers: dict[str, int] = {}
    number_of = np.empty(len(paths), np.int32)
    before, number = None, -1
    for place, path in enumerate(paths):
        folder = path.rpartition("/")[0]
        if folder != before:  # sorted paths: nearly always the same as before
            name = _class_name(root, folder, tag)
            before, number = folder, -1 if name is None else numbers.setdefault(name, len(numbers))
        number_of[place] = number
    return numbers, number_of


def _class_name(root: Path, folder: str, tag: str | None) -> str | None:
    """The class of the images in a folder, None where it is no class folder nor lies in one."""
    folders = folder.split("/") if folder else []
    if tag is None:
        return folders[0] if folders else None
    folders = [*root.parts, *folders]
    places = [place for place, name in enumerate(folders[:-1]) if name == tag]
    return folders[places[-1] + 1] if places else None


def pair_by_name(inputs: Listing, root: Path) -> Listing:
    """Return for each input the image below `root` of the same path, the ending aside, in the inputs' order.

    An image file is the partner of a single input, whatever it is called.

    Raises:
        UserError: an input has no partner, or two. The first of them are listed.
    """
    targets = list_images(root, single=True)
    if len(inputs) == 1 and root.is_file():
        return replace(targets, labels=inputs.labels, classes=inputs.classes)
    chosen = np.empty(len(inputs), np.int64)
    missing, twice, near = [], [], 0
    for index, path in enumerate(inputs.paths):
        partners = _partners(path, targets.paths, near)
        if not partners:
            missing.append(path)
            continue
        chosen[index] = partners[0]
        near = partners[0] + 1
        if len(partners) > 1:
            twice.append(" and ".join(targets.paths[i] for i in partners))
    if missing:
        raise UserError(_listed(f"{root}: no image of the same name for {len(missing)} of {inputs.root}", missing))
    if twice:
        raise UserError(_listed(f"{root}: {len(twice)} names that differ in nothing but the ending", twice))
    return replace(targets, paths=targets.paths.select(chosen), labels=inputs.labels, classes=inputs.classes)


def _partners(path: str, targets: Names, near: int) -> Sequence[int]:
    """Where among sorted paths the path itself is; without it, those that differ in nothing but the ending.

    Args:
        near: a guess where that is, to save time.
    """
    place = _place(path, targets, near)
    if place < len(targets) and targets[place] == path:
        return [place]
    stem = _without_ending(path)
    places = range(_place(f"{stem}.", targets, near), _place(f"{stem}/", targets, near))  # "/" comes next after "."
    return [place for place in places if _without_ending(targets[place]) == stem]


def _place(path: str, targets: Names, near: int) -> int:
    """`bisect_left`, which is quick where the guess is good."""
    first, last = max(0, near - 2), min(len(targets), near + 2)
    if (first == 0 or targets[first] < path) and (last == len(targets) or path <= targets[last]):
        return bisect_left(targets, path, first, last)
    return bisect_left(targets, path)


def _without_ending(path: str) -> str:
    return path.rpartition(".")[0]


def _listed(head: str, names: Sequence[str]) -> str:
    more = [f"... and {len(names) - 20} more"] if len(names) > 20 else []
    return "\n".join([f"{head}:", *names[:20], *more])


def take_fraction(listing: Listing, fraction: float, seed: int) -> Listing:
    """A stratified subset: of each class the same share, at least one image.

    Which images are taken depends on the seed and their paths alone, and a larger share contains a smaller one.
    """
    if fraction == 1:
        return listing
    # 64 bits of each hash are enough to order by
    keys = np.fromiter((int(path_hash(seed, path)[:16], 16) for path in listing.paths), np.uint64, len(listing))
    order = np.lexsort((keys, listing.labels))
    bounds = np.searchsorted(listing.labels[order], np.arange(listing.labels.max() + 2))
    classes = [order[first:last] for first, last in pairwise(bounds)]
    kept = [members[: max(1, round(fraction * len(members)))] for members in classes]
    return listing.select(np.sort(np.concatenate(kept)))


def path_hash(seed: int, path: str) -> str:
    """A key that orders paths at random but reproducibly, whatever else is in the folder."""
    return hashlib.sha256(f"{seed}/{path}".encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Checked:
    """What a look at images has found.

    Attributes:
        bad: index in the listing -> reason.
        first_of_more: indices of those whose file holds further pictures (pages, frames), as far as they were decoded.
        prints: uint8 [images, bytes], `data.duplicates`; zeros for bad images and for masks.
    """

    bad: dict[int, str]
    first_of_more: list[int]
    prints: np.ndarray


def check_images(listing: Listing, indices: Sequence[int] | np.ndarray, reading: Reading) -> Checked:
    """Decode these images once and tell what is in them."""

    def check(index: int) -> tuple[str, bool, np.ndarray | None]:
        try:
            look = look_at_image(listing.open(int(index)), reading)
        except UnreadableImageError as error:
            return str(error), False, None
        return "", look.has_more, None if look.thumbnail is None else print_of(look.thumbnail)

    width = width_of(len(listing))
    found = Checked({}, [], np.zeros((len(indices), width), np.uint8))
    results = log_progress(parallel_map(check, indices), len(indices), f"Checking the images of {listing.root}")
    for place, (index, (reason, has_more, its_print)) in enumerate(zip(indices, results, strict=True)):
        if reason:
            found.bad[int(index)] = reason
        if has_more:
            found.first_of_more.append(int(index))
        if its_print is not None:
            found.prints[place] = its_print[:width]
    return found


def load_images(listing: Listing, indices: Sequence[int], reading: Reading) -> np.ndarray | list[np.ndarray]:
    """Decode these images into memory.

    Returns:
        uint8 array [len(indices), height, width, channels]; a list of arrays where images keep their own sizes.

    Raises:
        UserError: an image cannot be read, although `check_images` or an earlier run has seen that it can.
    """

    def load(index: int) -> np.ndarray:
        try:
            return read_image(listing.open(index), reading)
        except UnreadableImageError as error:
            raise UserError(f"unusable since it was checked: {listing.place(index)}: {error}") from None

    decoded = log_progress(parallel_map(load, indices), len(indices), f"Loading the images of {listing.root}")
    if reading.size is None:
        return list(decoded)
    images = np.empty((len(indices), *reading.size, reading.channels), np.uint8)
    for slot, pixels in enumerate(decoded):
        images[slot] = pixels
    return images
