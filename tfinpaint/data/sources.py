"""Folders of images -> sorted listings and decoded pixels. No TensorFlow: files, integers and numpy only."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from tfinpaint.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half an image is a bad image


class UnreadableImageError(Exception):
    """A file that should be an image and cannot be decoded. The message is the reason, without the path."""


@dataclass(frozen=True)
class Listing:
    """The images of a folder, in sorted order, so that an index means the same file on every rank.

    Attributes:
        root: the folder.
        paths: image paths relative to `root`, as POSIX strings.
        labels: class index of each path; all 0 for a listing without classes.
        classes: class names in sorted order; () for a listing without classes.
        stray: files that were passed over because they are not images, by name.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    stray: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Sequence[int]) -> Listing:
        """The listing of these indices alone, in the given order."""
        return replace(
            self,
            paths=tuple(self.paths[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
        )

    def absolute(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])


def list_images(root: Path) -> Listing:
    """All images below a folder, without classes.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    images, stray = _walk(root)
    if not images:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{root}: no images found; expected files ending in {suffixes}")
    return Listing(root, tuple(images), (0,) * len(images), (), tuple(stray))


def list_class_folders(root: Path, classes: Sequence[str] | None = None) -> Listing:
    """The images of `root/<class>/...`; the class is the name of the first folder.

    Args:
        root: folder of class folders. Images that lie beside the class folders count as stray.
        classes: the classes to expect (those of the training folder); None takes every folder for a class.

    Raises:
        UserError: no such folder, a class without images, fewer than two classes, or a class not in `classes`.
    """
    images, stray = _walk(root)
    inside = [path for path in images if "/" in path]
    stray += [path for path in images if "/" not in path]
    found = class_folders(root)
    counts = Counter(path.split("/", 1)[0] for path in inside)
    if empty := [name for name in found if not counts[name]]:
        raise UserError(f"{root}: class folder without images: {', '.join(empty)}; fill it or remove it")
    if classes is None and len(found) < 2:
        raise UserError(
            f"{root}: a classifier needs at least two class folders, found {len(found)}"
            + (f" ({found[0]})" if found else "")
        )
    names = list(classes) if classes is not None else found
    if unknown := [name for name in found if name not in names]:
        raise UserError(f"{root}: class {', '.join(unknown)} is not among the training classes: {', '.join(names)}")
    if not inside:
        raise UserError(f"{root}: no images found; expected one folder of images per class")
    index = {name: i for i, name in enumerate(names)}
    labels = tuple(index[path.split("/", 1)[0]] for path in inside)
    return Listing(root, tuple(inside), labels, tuple(names), tuple(sorted(stray)))


def class_folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))


def is_hidden(name: str) -> bool:
    """True for what a file manager or an archiver left behind."""
    return name.startswith((".", "__MACOSX"))


def walk_files(root: Path) -> list[str]:
    """All files below root, as sorted POSIX paths relative to it; hidden files and folders are left out.

    Links to folders are followed, each folder once.

    Raises:
        UserError: there is no such folder, or one below it cannot be read.
    """

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}")

    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=fail):
        seen.add(os.path.realpath(folder))
        subfolders[:] = [
            name
            for name in subfolders
            if not is_hidden(name) and os.path.realpath(os.path.join(folder, name)) not in seen
        ]
        relative = Path(folder).relative_to(root)
        found += [(relative / name).as_posix() for name in files if not is_hidden(name)]
    return sorted(found)


def is_image(path: str) -> bool:
    """True for a name that ends as an image's does."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """(images, other files) below root."""
    files = walk_files(root)
    return [path for path in files if is_image(path)], [path for path in files if not is_image(path)]


def take_fraction(listing: Listing, fraction: float, seed: int) -> Listing:
    """A stratified subset: of each class the same share, at least one image.

    Which images are taken depends on the seed and their paths alone, and a larger share contains a smaller one.
    """
    if fraction == 1:
        return listing
    kept: list[int] = []
    for label in range(max(listing.labels) + 1):
        members = [i for i, other in enumerate(listing.labels) if other == label]
        members.sort(key=lambda i: path_hash(seed, listing.paths[i]))
        kept += members[: max(1, round(fraction * len(members)))]
    return listing.select(sorted(kept))


def path_hash(seed: int, path: str) -> str:
    """A key that orders paths at random but reproducibly, whatever else is in the folder."""
    return hashlib.sha256(f"{seed}/{path}".encode()).hexdigest()


def read_image(path: str | os.PathLike[str] | IO[bytes], height: int, width: int) -> np.ndarray:
    """Decode a file (by path, or opened) and resize it. Every image of the project is read here.

    The resize is bilinear and anti-aliased: when shrinking, the triangle filter widens to cover all source pixels.
    EXIF rotation is applied; grey, palette, alpha and CMYK images become RGB.

    Returns:
        uint8 array [height, width, 3], RGB, 0 to 255.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, oversized or not an image.
    """
    try:
        with Image.open(path) as file:
            if file.format == "JPEG":
                file.draft("RGB", (2 * width, 2 * height))  # lets libjpeg decode at 1/2, 1/4 or 1/8 of the size
            image = _to_rgb(ImageOps.exif_transpose(file))
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except (MemoryError, UnreadableImageError):
        raise
    except Exception as error:  # damaged metadata alone makes Pillow raise struct.error, TypeError and more
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadableImageError(reason or type(error).__name__) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # convert() would clip 16-bit values, not scale them
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImageError("floating-point pixels, whose range is not known; convert it to 8 or 16 bits")
    return image.convert("RGB")


def find_unreadable(listing: Listing, indices: Sequence[int], height: int, width: int) -> dict[int, str]:
    """Decode these images once and name the bad ones.

    Returns:
        index in the listing -> reason.
    """

    def check(index: int) -> str | None:
        try:
            read_image(listing.absolute(index), height, width)
        except UnreadableImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        reasons = pool.map(check, indices)
        return {index: reason for index, reason in zip(indices, reasons, strict=True) if reason is not None}


def load_images(listing: Listing, indices: Sequence[int], height: int, width: int) -> np.ndarray:
    """Decode these images into memory.

    Returns:
        uint8 array [len(indices), height, width, 3].

    Raises:
        UnreadableImageError: see `read_image`; `find_unreadable` has weeded those out before.
    """
    images = np.empty((len(indices), height, width, 3), np.uint8)

    def load(slot: int) -> None:
        images[slot] = read_image(listing.absolute(indices[slot]), height, width)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(load, range(len(indices))))
    return images
