"""List the images of a folder, plain or of records, with their classes. No TensorFlow."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from tfinpaint.data.images.decode import FORMATS
from tfinpaint.data.images.signatures import describe_content, image_format, read_head, unsupported_format
from tfinpaint.data.listing.excluded import BESIDE_CLASSES, ExcludedFiles
from tfinpaint.data.listing.folder_cache import list_folder
from tfinpaint.data.listing.names import Names
from tfinpaint.data.listing.walk import check_class_names, class_folders, extension_of, printable
from tfinpaint.data.records.reader import Records, is_records, open_records
from tfinpaint.errors import UserError

PREPARED = frozenset({"training", "testing", "validation"})  # the folders that `prepare` makes, which are no classes


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a folder, in sorted order, so that an index means the same file on every rank.

    Attributes:
        root: the folder.
        paths: image paths relative to `root`, POSIX.
        labels: int32, class index of each path; all 0 for a listing without classes.
        classes: class names in sorted order; () for a listing without classes.
        excluded: the files that are not used.
        records: where the images are read from; None for image files.
    """

    root: Path
    paths: Names
    labels: np.ndarray
    classes: tuple[str, ...]
    excluded: ExcludedFiles
    records: Records | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Sequence[int] | np.ndarray) -> Listing:
        """Return the listing of these images only, in the given order."""
        indices = np.asarray(indices, np.int64)
        return replace(self, paths=self.paths.select(indices), labels=self.labels[indices])

    def open(self, index: int) -> str | io.BytesIO:
        """Return what `read_image` takes: the path of an image, or its contents from the records.

        Raises:
            UnreadableImageError: the records are damaged there.
        """
        if self.records:
            return io.BytesIO(self.records.read(self.paths.row(index)))
        return os.path.join(self.root, self.paths[index])

    def place(self, index: int) -> str:
        """Return where an image is, for messages."""
        if self.records:
            return printable(self.records.place(self.paths.row(index)))
        return printable(os.path.join(self.root, self.paths[index]))

    def state(self, index: int) -> str | None:
        """Return a short text that changes when the image's contents change; None if the file cannot be accessed."""
        if self.records:
            return self.records.state(self.paths.row(index))
        try:
            status = os.stat(os.path.join(self.root, self.paths[index]))  # noqa: PTH116
        except OSError:
            return None
        return f"{status.st_size} {status.st_mtime_ns}"


def image_names(root: Path) -> Names:
    """Return the paths of all images below a folder, plain or of records, relative to it, without a message.

    Raises:
        UserError: There is no such folder, or its records cannot be used.
    """
    return open_records(root).names if is_records(root) else list_folder(root, quiet=True).images


def list_images(root: Path, *, single: bool = False) -> Listing:
    """List all images below a folder, without classes.

    Args:
        single: also accept an image file, as the listing of this one image.

    Raises:
        UserError: there is no such folder, or no image in it; or its records cannot be used.
    """
    if root.is_file():
        return _list_file(root, single)
    paths, excluded, records = _find_images(root)
    if not paths:
        raise UserError(_no_images_message(root, excluded))
    return Listing(root, paths, np.zeros(len(paths), np.int32), (), excluded, records)


def list_class_folders(root: Path, classes: Sequence[str] | None = None, tag: str | None = None) -> Listing:
    """List the images of `root/<class>/...`; the name of the first folder is the class.

    Args:
        root: folder of class folders. Images beside the class folders are excluded.
        classes: the classes to expect (those of the training folder); None: every folder is a class.
        tag: the class folders are those in a folder of this name, anywhere in the images' paths.

    Raises:
        UserError: no such folder, a class without images, fewer than two classes, or a class not in `classes`; or its
            records cannot be used.
    """
    if root.is_file():
        _list_file(root, single=False)
    paths, excluded, records = _find_images(root)
    numbers, number_of = _number_classes(root, paths, tag)
    found = sorted(numbers) if tag or records else class_folders(root)
    if tag and not found:
        raise UserError(f"{root}: no image lies in a folder below one named {tag!r}")
    _check_classes(root, found, numbers, classes)
    inside = number_of >= 0
    outside = len(inside) - int(np.count_nonzero(inside))
    if outside == len(inside):
        raise UserError(_no_images_message(root, excluded) + ", one folder of them per class")
    if outside:
        excluded.add(paths[int(np.argmin(inside))], BESIDE_CLASSES, outside)
        paths, number_of = paths.select(np.flatnonzero(inside)), number_of[inside]
    names = list(classes) if classes is not None else found
    index = {name: i for i, name in enumerate(names)}
    labels = np.array([index[name] for name in numbers], np.int32)[number_of]
    return Listing(root, paths, labels, tuple(names), excluded, records)


def has_class_folders(root: Path) -> bool:
    """Return True if there is a folder in this folder, or in the folder that was packed into its records.

    Raises:
        UserError: the folder's records cannot be used.
    """
    if is_records(root):
        return any("/" in path for path in open_records(root).names)
    return root.is_dir() and bool(class_folders(root))


def take_fraction(listing: Listing, fraction: float, seed: int) -> Listing:
    """Return a stratified subset: the same fraction of each class, at least one image.

    The choice depends only on the seed and on the paths, and a larger fraction contains a smaller one.
    """
    return listing if fraction == 1 else listing.select(fraction_indices(listing, fraction, seed))


def fraction_indices(listing: Listing, fraction: float, seed: int) -> np.ndarray:
    """Return int64 [images], sorted: the indices of the images that `take_fraction` takes."""
    kept = [members[: max(1, round(fraction * len(members)))] for members in _shuffled_classes(listing, seed)]
    return np.sort(np.concatenate(kept))


def hold_out(listing: Listing, fraction: float, seed: int) -> tuple[Listing, Listing]:
    """Divide a listing into images to train on and a stratified part for validation.

    Validation gets the same fraction of each class, but at least one image, and none of a class that has only one. What
    `take_fraction` takes of more images contains what it takes of fewer, and so do the parts to train on.

    Raises:
        UserError: every class has a single image.
    """
    classes = _shuffled_classes(listing, seed)
    held = [min(len(members) - 1, max(1, round(fraction * len(members)))) for members in classes]
    if not any(held):
        raise UserError(f"{listing.root}: no class has two images, so that none can be kept out for validation")
    places = [len(members) - count for members, count in zip(classes, held, strict=True)]
    parts = [np.split(members, [place]) for members, place in zip(classes, places, strict=True)]
    trained, validated = (listing.select(np.sort(np.concatenate(each))) for each in zip(*parts, strict=True))
    return trained, validated


def _shuffled_classes(listing: Listing, seed: int) -> list[np.ndarray]:
    """Return the indices of each class's images, in a random order that depends on the seed and on their paths."""
    # 64 bits of each hash are enough to order by
    keys = np.fromiter((int(path_hash(seed, path)[:16], 16) for path in listing.paths), np.uint64, len(listing))
    order = np.lexsort((keys, listing.labels))
    bounds = np.searchsorted(listing.labels[order], np.arange(listing.labels.max() + 2))
    return [order[first:last] for first, last in pairwise(bounds) if first < last]


def path_hash(seed: int, path: str) -> str:
    """Return a key that sorts paths in random order, reproducibly and whatever other files there are."""
    return hashlib.sha256(f"{seed}/{path}".encode("utf-8", "surrogatepass")).hexdigest()


def _find_images(root: Path) -> tuple[Names, ExcludedFiles, Records | None]:
    """Return (image paths, the other files, the records if the folder holds them)."""
    if is_records(root):
        records = open_records(root)
        return records.names, ExcludedFiles(), records
    index = list_folder(root)
    return index.images, index.excluded, None


def _list_file(file: Path, single: bool) -> Listing:
    """Return the listing of one image, if that is allowed. Raises UserError."""
    try:
        head = read_head(str(file))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    if image_format(head) and single:
        return Listing(file.parent, Names.of([file.name]), np.zeros(1, np.int32), (), ExcludedFiles())
    if kind := unsupported_format(head, extension_of(file.name)):
        raise UserError(f"{file}: {kind} is not supported; convert to JPEG")
    found = describe_content(head) or ("a single image" if image_format(head) else "a file")
    unpack = "; unpack it with `tfinpaint prepare`" if "archive" in found or head[257:262] == b"ustar" else ""
    raise UserError(f"{file}: is {found}; expected {'an image or ' if single else ''}a folder of images{unpack}")


def _no_images_message(root: Path, excluded: ExcludedFiles) -> str:
    found = f" ({excluded.summary()})" if excluded.summary() else ""
    return f"{root}: no images found; expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]} files{found}"


def _check_classes(root: Path, found: list[str], numbers: dict[str, int], classes: Sequence[str] | None) -> None:
    """Raise UserError for a class without images, too few classes, or a class that training does not know.

    Args:
        found: names of the class folders.
        numbers: the classes that have images.
        classes: the classes to expect; None: any, two or more.
    """

    def describe_empty(name: str) -> str:
        return f"{name} ({list_folder(root / name).excluded.summary() or 'empty'})"

    if found and set(found) <= PREPARED:
        held, one = " and ".join(found), "training" if "training" in found else found[0]
        raise UserError(f"{root}: holds {held} in place of class folders; name one of them, such as {root / one}")
    if empty := sorted(set(found) - set(numbers)):
        named = ", ".join(describe_empty(name) for name in empty[:20]) + ", ..." * (len(empty) > 20)
        raise UserError(f"{root}: class folder without images: {named}; fill it or remove it")
    if classes is None and len(found) < 2:
        names = f" ({found[0]})" if found else ""
        raise UserError(
            f"{root}: a classifier needs at least two class folders, found {len(found)}{names}; expected "
            f"{root.name}/<class>/<image>"
        )
    check_class_names(root, found)
    if classes is not None and (unknown := [name for name in found if name not in classes]):
        are = f"class {unknown[0]} is" if len(unknown) == 1 else f"classes {', '.join(unknown)} are"
        raise UserError(f"{root}: {are} not among the training classes: {', '.join(classes)}")


def _number_classes(root: Path, paths: Names, tag: str | None) -> tuple[dict[str, int], np.ndarray]:
    """Return (class -> number in order of appearance, int32 number of each path; -1 outside the class folders)."""
    numbers: dict[str, int] = {}
    number_of = np.empty(len(paths), np.int32)
    before, number = None, -1
    for place, path in enumerate(paths):
        folder = path.rpartition("/")[0]
        if folder != before:  # paths are sorted: most are in the folder of the path before
            name = _class_name(root, folder, tag)
            before, number = folder, -1 if name is None else numbers.setdefault(name, len(numbers))
        number_of[place] = number
    return numbers, number_of


def _class_name(root: Path, folder: str, tag: str | None) -> str | None:
    """Return the class of the images in a folder; None if it is outside the class folders."""
    folders = folder.split("/") if folder else []
    if tag is None:
        return folders[0] if folders else None
    folders = [*root.parts, *folders]
    places = [place for place, name in enumerate(folders[:-1]) if name == tag]
    return folders[places[-1] + 1] if places else None
