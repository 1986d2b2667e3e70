"""What the features of an encoder must beat: random encoders, raw pixels and histograms of gradients."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tfinpaint.config.encoders import EncoderName
from tfinpaint.data.examples import Images, Preprocessing, RankShare
from tfinpaint.data.listing.listing import Listing
from tfinpaint.data.pipeline import train_batches
from tfinpaint.data.transforms import to_float
from tfinpaint.distributed.world import World
from tfinpaint.models.encoder import build_encoder
from tfinpaint.probing.encoder import Source
from tfinpaint.probing.features import BATCH, input_batches
from tfinpaint.report.figures import shrink_images
from tfinpaint.system.progress import log_progress
from tfinpaint.train.batchnorm import StatisticsEstimator, batchnorm_layers

INITIALISATIONS = 3
RECALIBRATION_BATCHES = 16  # as `model.batchnorm_batches`
MOST_SIDE = 32  # pixels; larger images are shrunk before their pixels are used as features
HOG_CELLS = 8  # along each side of an image
HOG_DIRECTIONS = 9


def random_encoders(source: Source, train: Listing) -> Mapping[str, tuple[EncoderName, keras.Model]]:
    """Return encoders of a source's architecture that were never trained: description -> (architecture, encoder).

    Each initialisation comes with the batch-norm statistics that it begins with, and with those of training images.
    """
    found = {}
    for number in range(1, INITIALISATIONS + 1):
        keras.utils.set_random_seed(number)
        model, recalibrated = (
            build_encoder(source.encoder, "after_relu", *source.shape, stem=source.stem) for _ in range(2)
        )
        recalibrated.set_weights(model.get_weights())
        _recalibrate(recalibrated, train, source.preprocessing)
        found[f"initialisation {number}"] = source.encoder, model
        found[f"initialisation {number}, batch norms recalibrated"] = source.encoder, recalibrated
    return found


def _recalibrate(model: keras.Model, train: Listing, preprocessing: Preprocessing) -> None:
    """Set the batch-norm statistics of an encoder to those of some batches of training images."""
    size = min(BATCH, len(train))
    images = Images.open(train, RankShare(), preprocessing, preload=False)
    batches = train_batches(
        images, batch_size=size, seed=0, first_step=0, prepare=lambda batch: {"inputs": to_float(batch["images"])}
    )
    some = batches.take(min(RECALIBRATION_BATCHES, len(train) // size))
    StatisticsEstimator(model, batchnorm_layers(model, trainable=True), some, World()).run()


def pixels_and_gradients(listing: Listing, pictures: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Return the features that need no network, each float32 [images, features].

    Returns:
        The pixels of the resized images, shrunk to at most MOST_SIDE x MOST_SIDE by means of blocks; and histograms of
        oriented gradients (Dalal and Triggs, CVPR 2005; scikit-image's `hog`) of the resized images, with HOG_CELLS
        cells along each side, blocks of 2 x 2 cells and HOG_DIRECTIONS directions.
    """
    pixels, gradients = [], []
    steps = -(-len(listing) // BATCH)
    for inputs in log_progress(input_batches(listing, pictures), steps, f"Pixels of {listing.root}, batch"):
        images = inputs.numpy()
        pixels.append(shrink_images(images, MOST_SIDE).reshape(len(images), -1))
        gradients += [_gradients_of(image) for image in images]
    return np.concatenate(pixels).astype(np.float32), np.stack(gradients).astype(np.float32)


def _gradients_of(image: np.ndarray) -> np.ndarray:
    from skimage.feature import hog

    cell = image.shape[0] // HOG_CELLS, image.shape[1] // HOG_CELLS
    return hog(image, HOG_DIRECTIONS, pixels_per_cell=cell, cells_per_block=(2, 2), channel_axis=-1)
