"""Classify a user's photos by a trained classifier, prepared and computed as `classify` evaluates its test images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.checkpoint.reader import open_checkpoint, read_progress, require_config
from tfinpaint.data.examples import Preprocessing
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.excluded import ExcludedFiles
from tfinpaint.data.listing.listing import Listing
from tfinpaint.data.listing.names import Names
from tfinpaint.data.listing.walk import printable
from tfinpaint.data.tasks import classification_task
from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import output_activation
from tfinpaint.probing.features import input_batches
from tfinpaint.report.photo_classes import PhotoClasses
from tfinpaint.runs.precision import recorded_precision
from tfinpaint.system.progress import log_progress


@dataclass(frozen=True)
class Classifier:
    """A trained classifier, and how its run prepares images.

    Attributes:
        path: the checkpoint.
        classes: the names of the classes, in the order of the model's outputs.
        model: returns probabilities [images, classes], or their logarithms.
        gives_logarithms: whether it returns logarithms.
        preprocessing: from image files to the model's inputs, without random steps.
        batch_size: images that the run evaluates at once on a rank.
    """

    path: Path
    classes: tuple[str, ...]
    model: keras.Model
    gives_logarithms: bool
    preprocessing: Preprocessing
    batch_size: int


def load_classifier(path: Path, precision: str | None = None) -> Classifier:
    """Load the classifier of a checkpoint folder.

    Args:
        precision: that it computes in; None: that of its run.

    Raises:
        UserError: It is not the checkpoint folder of a classifier, or is damaged.
    """
    config = require_config(path)
    data, ranks = config.data, read_progress(path).ranks
    precision = precision or recorded_precision({"precision": config.precision})
    with computing_in(precision), open_checkpoint(path, ("classifier",)) as saved:
        network, model = saved.network(), saved.model()
    logarithms = network is not None and output_activation(network) == "log_softmax"
    batch_size = data.test_batch_size if data.batch_size_per_rank else max(1, data.test_batch_size // ranks)
    preprocessing = classification_task(config, labels=False, augment=False).images
    return Classifier(path, saved.header.classes, model, logarithms, preprocessing, batch_size)


@contextmanager
def computing_in(name: str) -> Iterator[None]:
    """Build the layers of models in this precision, within a `with` statement."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def classify_photos(classifier: Classifier, listings: Sequence[Listing]) -> PhotoClasses:
    """Return the classes of all images of these listings, and the reasons why some cannot be read.

    Raises:
        UserError: The model produces values that are not finite.
    """
    photos: list[str] = []
    parts = [np.zeros((0, len(classifier.classes)), np.float32)]
    unreadable: dict[str, str] = {}
    run = tf.function(lambda inputs: classifier.model(inputs, training=False), autograph=False, reduce_retracing=True)
    for listing in _merged(listings):
        bad = check_images(listing, range(len(listing)), classifier.preprocessing.decoding).bad
        good = [index for index in range(len(listing)) if index not in bad]
        unreadable |= {_name(listing, index): reason for index, reason in sorted(bad.items())}
        photos += [_name(listing, index) for index in good]
        if good:
            parts += [run(inputs).numpy() for inputs in _batches(classifier, listing.select(good))]
    outputs = np.concatenate(parts)
    probabilities = np.exp(outputs) if classifier.gives_logarithms else outputs
    if not np.isfinite(probabilities).all():
        raise UserError(f"{classifier.path}: the model produced NaN or Inf; use an earlier checkpoint")
    return PhotoClasses(classifier.classes, tuple(photos), probabilities, unreadable)


def _merged(listings: Sequence[Listing]) -> list[Listing]:
    """Return one listing of the images in files, and those of records, so that batches are as large as possible."""
    files = [listing for listing in listings if listing.records is None]
    paths = [os.path.join(listing.root, path) for listing in files for path in listing.paths]
    labels, records = np.zeros(len(paths), np.int32), [listing for listing in listings if listing.records]
    merged = Listing(Path(), Names.of(paths), labels, (), ExcludedFiles())
    return [merged, *records] if paths else records


def _name(listing: Listing, index: int) -> str:
    return printable(os.path.normpath(listing.place(index)))


def _batches(classifier: Classifier, listing: Listing) -> Iterator[tf.Tensor]:
    """Yield the inputs of the classifier, float32 [batch, height, width, channels]; log how long all will take."""
    size = classifier.batch_size
    batches = input_batches(listing, classifier.preprocessing, size)
    return log_progress(batches, -(-len(listing) // size), "Classifying photos, batch")
