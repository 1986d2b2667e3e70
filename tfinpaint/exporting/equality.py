"""Compare an export with the run that it was made from, on photos of the run's data where these are there."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from tfinpaint.config.schema import Config
from tfinpaint.data.examples import Preprocessing
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.listing import Listing, list_images
from tfinpaint.errors import UserError
from tfinpaint.exporting.formats import Exported
from tfinpaint.probing.examples import spread_over_classes
from tfinpaint.probing.features import input_batches
from tfinpaint.storage.atomic import write_image
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted

TOLERANCE = 1e-4  # of a probability; of an encoder's features, as a share of the largest one
MOST_PHOTOS = 8
MOST_SCALED_PHOTOS = 32  # that are decoded at a fraction of their size and whole
MOST_SIDE = 640  # pixels of a photo: of larger ones, an export in float64 takes minutes and gigabytes
_SEED = 0  # of generated photos


@dataclass(frozen=True)
class Photos:
    """Photos on which an export is compared with its run.

    Attributes:
        pixels: uint8 [height, width, 3] each, RGB, 0 to 255, of several sizes; the last one is the first one mirrored.
        source: where they come from, in words.
    """

    pixels: Sequence[np.ndarray]
    source: str


@dataclass(frozen=True)
class Agreement:
    """How an export agrees with its run.

    Attributes:
        difference: the largest absolute difference of two outputs; for features, as a share of the largest one.
        photos: those that were compared.
    """

    difference: float
    photos: Photos

    def sentence(self, what: str) -> str:
        """Say what was compared, and how it differs."""
        return (
            f"Checked: the {what} of the export differ from those of the run by at most {self.difference:.1g} on "
            f"{len(self.photos.pixels)} photos ({self.photos.source})"
        )


def choose_photos(config: Config, size: tuple[int, int]) -> Photos:
    """Return some photos of a run's data, or generated ones where it cannot be read, all of them at several sizes.

    Photos with more than MOST_SIDE pixels a side are shrunk, as far as a crop allows.

    Args:
        size: height and width of the network's inputs in pixels.
    """
    data = config.data
    options = DecodeOptions(max_mpixels=data.max_image_mpixels, jpeg_scaling=False)
    crop = max((side for step in config.input_steps if step.center_crop for side in step.center_crop), default=1)
    for place in filter(None, (data.test_input_path, data.input_path)):
        try:
            if found := _read_some(list_images(place, single=True), options):
                smaller = [_shrunk(photo, crop) for photo in found]
                return _at_several_sizes(smaller, f"images of {display_path(place)}, two of them enlarged")
        except (UserError, OSError):
            continue
    generator, (height, width) = np.random.default_rng(_SEED), size
    shapes = [(height + 7 * n, width + 11 * n, 3) for n in range(MOST_PHOTOS // 2)]
    noise = [generator.integers(0, 256, shape, np.uint8) for shape in shapes]
    return _at_several_sizes(noise, "generated, because the images of the run are not there")


def _read_some(listing: Listing, options: DecodeOptions) -> list[np.ndarray]:
    found = []
    for index in spread_over_classes(listing.labels, MOST_PHOTOS):
        try:
            found.append(read_image(listing.open(index), options))
        except UnreadableImageError:
            continue
    return found


def _shrunk(photo: np.ndarray, crop: int) -> np.ndarray:
    """Return a photo with sides of at most MOST_SIDE pixels, unless a crop of this many pixels needs more."""
    height, width = photo.shape[:2]
    factor = max(MOST_SIDE / max(height, width), crop / min(height, width))
    if factor >= 1:
        return photo
    return np.asarray(Image.fromarray(photo).resize((math.ceil(factor * width), math.ceil(factor * height))))


def _at_several_sizes(photos: list[np.ndarray], source: str) -> Photos:
    """Return the photos, the first one wider and higher, and mirrored."""
    first = Image.fromarray(photos[0])
    width, height = first.size
    larger = [np.asarray(first.resize(size)) for size in ((3 * width, 2 * height + 1), (2 * width + 1, 3 * height))]
    return Photos([*photos, *larger, np.ascontiguousarray(photos[0][:, ::-1])], source)


def inputs_of_run(photos: Photos, preprocessing: Preprocessing) -> np.ndarray:
    """Return the inputs of a run's network that its evaluation makes of photos, float32 [photos, height, width, c]."""
    with tempfile.TemporaryDirectory() as folder:
        for number, pixels in enumerate(photos.pixels):
            write_image(Path(folder) / f"{number:03}.png", Image.fromarray(pixels), "PNG")
        batches = input_batches(list_images(Path(folder)), preprocessing)
        return np.concatenate([batch.numpy() for batch in batches])


def inputs_by_decoding(config: Config, preprocessing: Preprocessing) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Return the inputs of a run's network made of some of its photos, decoded as the run does, and whole.

    Returns:
        (what was compared, in words, inputs as the run decodes them, inputs of whole photos); None where both are the
        same: without `data.jpeg_scaling`, without large JPEG files, or without the photos.

    Raises:
        UserError: A photo became unreadable meanwhile.
    """
    decoding = preprocessing.decoding
    whole = replace(preprocessing, decoding=replace(decoding, jpeg_scaling=False))
    for place in filter(None, (config.data.test_input_path, config.data.input_path) if decoding.jpeg_scaling else ()):
        try:
            listing = list_images(place, single=True)
        except (UserError, OSError):
            continue
        wanted = spread_over_classes(listing.labels, MOST_SCALED_PHOTOS)
        bad = check_images(listing, wanted, decoding).bad
        photos = listing.select([index for index in wanted if index not in bad])
        if not len(photos):
            continue
        as_run, of_whole = (
            np.concatenate([batch.numpy() for batch in input_batches(photos, way)]) for way in (preprocessing, whole)
        )
        name = f"{counted(len(photos), 'image')} of {display_path(place)}"
        return None if np.array_equal(as_run, of_whole) else (name, as_run, of_whole)
    return None


def compare_classifiers(photos: Photos, expected: np.ndarray, exported: Exported) -> Agreement:
    """Compare the probabilities of an export with those of its run, photo by photo and in a batch of two.

    Args:
        expected: float32 [photos, classes]: those of the run.

    Raises:
        UserError: They differ by more than TOLERANCE.
    """
    alone = np.concatenate([exported(pixels[None]) for pixels in photos.pixels])
    pair = exported(np.stack([photos.pixels[0], photos.pixels[-1]]))
    found, wanted = np.concatenate([alone, pair]), np.concatenate([expected, expected[[0, -1]]])
    return _agreement(photos, _largest_difference(found, wanted), "probabilities")


def compare_encoders(photos: Photos, model: keras.Model, inputs: np.ndarray, exported: Exported) -> Agreement:
    """Compare the features of an export with those of the encoder that it is a copy of.

    Args:
        inputs: float32 [photos, height, width, channels]: those of the run's network.

    Raises:
        UserError: They differ by more than TOLERANCE of the largest one.
    """
    expected = np.asarray(model(inputs, training=False))
    difference = _largest_difference(exported(inputs), expected) / max(1.0, float(np.abs(expected).max()))
    return _agreement(photos, difference, "features")


def _largest_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest absolute difference; infinite where a value is not finite."""
    difference = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max())
    return difference if np.isfinite(difference) else float("inf")


def _agreement(photos: Photos, difference: float, what: str) -> Agreement:
    if difference > TOLERANCE:
        raise UserError(
            f"the {what} of the export differ from those of the run by {difference:.2g}, more than {TOLERANCE:g} "
            f"({photos.source}); nothing was written; please report this with the run's config.resolved.yaml"
        )
    return Agreement(difference, photos)
