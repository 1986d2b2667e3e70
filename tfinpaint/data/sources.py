"""Folders of images -> sorted listings and decoded pixels. No TensorFlow: files, integers and numpy only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from tfinpaint.config_transforms import Transform, shape_after
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


def list_class_folders(root: Path, classes: Sequence[str] | None = None, tag: str | None = None) -> Listing:
    """The images of `root/<class>/...`; the class is the name of the first folder.

    Args:
        root: folder of class folders. Images that lie beside the class folders count as stray.
        classes: the classes to expect (those of the training folder); None takes every folder for a class.
        tag: the class is the folder below the one of this name, wherever that is in the images' paths.

    Raises:
        UserError: no such folder, a class without images, fewer than two classes, or a class not in `classes`.
    """
    images, stray = _walk(root)
    class_of = {path: name for path in images if (name := _class_name(root, path, tag))}
    inside = [path for path in images if path in class_of]
    stray += [path for path in images if path not in class_of]
    found = sorted(set(class_of.values())) if tag else class_folders(root)
    if tag and not found:
        raise UserError(f"{root}: no image lies in a folder below one named {tag!r}")
    if empty := sorted(set(found) - set(class_of.values())):
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
    labels = tuple(index[class_of[path]] for path in inside)
    return Listing(root, tuple(inside), labels, tuple(names), tuple(sorted(stray)))


def _class_name(root: Path, path: str, tag: str | None) -> str | None:
    """The class of an image, None where it lies in no class folder."""
    folders = path.split("/")[:-1]
    if tag is None:
        return folders[0] if folders else None
    folders = [*root.parts, *folders]
    places = [place for place, name in enumerate(folders[:-1]) if name == tag]
    return folders[places[-1] + 1] if places else None


def pair_by_name(inputs: Listing, root: Path) -> Listing:
    """For each input the image below `root` of the same path, the ending aside, in the inputs' order.

    Raises:
        UserError: an input has no partner, or two. The first of them are listed.
    """
    candidates: dict[str, list[str]] = {}
    targets = list_images(root)
    for path in targets.paths:
        candidates.setdefault(_without_ending(path), []).append(path)
    same = set(targets.paths)
    found = [[path] if path in same else candidates.get(_without_ending(path), []) for path in inputs.paths]
    missing = [path for path, partners in zip(inputs.paths, found, strict=True) if not partners]
    if missing:
        raise UserError(_listed(f"{root}: no image of the same name for {len(missing)} of {inputs.root}", missing))
    twice = [" and ".join(partners) for partners in found if len(partners) > 1]
    if twice:
        raise UserError(_listed(f"{root}: {len(twice)} names that differ in nothing but the ending", twice))
    return replace(inputs, root=root, paths=tuple(partners[0] for partners in found), stray=targets.stray)


def _without_ending(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _listed(head: str, names: Sequence[str]) -> str:
    more = [f"... and {len(names) - 20} more"] if len(names) > 20 else []
    return "\n".join([f"{head}:", *names[:20], *more])


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


@dataclass(frozen=True)
class Reading:
    """How the files of a listing become pixels.

    Attributes:
        steps: `resize` and `center_crop` steps to do while decoding; without any, images keep their own sizes.
        channels: 3 (RGB) or 1 (luma, or a mask's values).
        is_mask: pixels are integers: they are neither scaled nor interpolated.
        classes: values of a mask are 0 to classes - 1; None: anything goes.
    """

    steps: tuple[Transform, ...] = ()
    channels: int = 3
    is_mask: bool = False
    classes: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of every image, None where they keep their own."""
        height, width, _ = shape_after(self.steps, self.channels)
        return (height, width) if height and width else None


def read_image(path: str | os.PathLike[str] | IO[bytes], reading: Reading) -> np.ndarray:
    """Decode a file (by path, or opened), resize and crop it. Every image of the project is read here.

    A resize is bilinear and anti-aliased: when shrinking, the triangle filter widens to cover all source pixels.
    EXIF rotation is applied; grey, palette, alpha and CMYK images become RGB.

    Returns:
        uint8 array [height, width, channels]: RGB or luma, 0 to 255; or a mask's integers.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, oversized, smaller than a crop, or not an image.
    """
    try:
        with Image.open(path) as file:
            if reading.is_mask and file.format == "JPEG":
                raise UnreadableImageError("a mask in JPEG has not kept its integers; save masks as PNG")
            first = reading.steps[0].resize if reading.steps else None
            if file.format == "JPEG" and first and not reading.is_mask:
                # lets libjpeg decode at 1/2, 1/4 or 1/8 of the size
                file.draft("RGB" if reading.channels == 3 else "L", (2 * first[0], 2 * first[1]))
            image = ImageOps.exif_transpose(file)
            image = _to_mask(image) if reading.is_mask else _to_rgb(image).convert(_MODES[reading.channels])
            for step in reading.steps:
                image = _resized(image, step, reading)
            pixels = np.asarray(image).reshape(image.height, image.width, reading.channels)
            if reading.classes and pixels.max() >= reading.classes:
                raise UnreadableImageError(f"the value {pixels.max()} is no class: there are {reading.classes}")
            return pixels
    except (MemoryError, UnreadableImageError):
        raise
    except Exception as error:  # damaged metadata alone makes Pillow raise struct.error, TypeError and more
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnreadableImageError(reason or type(error).__name__) from None


_MODES = {1: "L", 3: "RGB"}


def _resized(image: Image.Image, step: Transform, reading: Reading) -> Image.Image:
    if step.resize:
        how = Image.Resampling.NEAREST if reading.is_mask else Image.Resampling.BILINEAR
        width, height = step.resize
        return image if image.size == (width, height) else image.resize((width, height), how)
    assert step.center_crop
    width, height = step.center_crop
    if image.width < width or image.height < height:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels, center_crop needs {width} x {height}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _to_mask(image: Image.Image) -> Image.Image:
    if image.mode in ("RGB", "RGBA"):  # often grey values, saved as colour
        red, green, blue = image.split()[:3]
        if red.tobytes() == green.tobytes() == blue.tobytes():
            return red
    if image.mode not in ("1", "L", "P"):
        raise UnreadableImageError(f"a mask needs one channel of 8-bit integers; this is an image of mode {image.mode}")
    return Image.fromarray(np.asarray(image).astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would clip 16-bit values, not scale them
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("F", "I"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise UnreadableImageError(f"{kind} pixels, whose range is not known; convert it to 8 or 16 bits")
    return image if image.mode == "L" else image.convert("RGB")


def find_unreadable(listing: Listing, indices: Sequence[int], reading: Reading) -> dict[int, str]:
    """Decode these images once and name the bad ones.

    Returns:
        index in the listing -> reason.
    """

    def check(index: int) -> str | None:
        try:
            read_image(listing.absolute(index), reading)
        except UnreadableImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        reasons = pool.map(check, indices)
        return {index: reason for index, reason in zip(indices, reasons, strict=True) if reason is not None}


def load_images(listing: Listing, indices: Sequence[int], reading: Reading) -> np.ndarray | list[np.ndarray]:
    """Decode these images into memory.

    Returns:
        uint8 array [len(indices), height, width, channels]; a list of arrays where images keep their own sizes.

    Raises:
        UnreadableImageError: see `read_image`; `find_unreadable` has weeded those out before.
    """
    if reading.size is None:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(lambda index: read_image(listing.absolute(index), reading), indices))
    images = np.empty((len(indices), *reading.size, reading.channels), np.uint8)

    def load(slot: int) -> None:
        images[slot] = read_image(listing.absolute(indices[slot]), reading)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(load, range(len(indices))))
    return images
