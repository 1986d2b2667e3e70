"""Evaluate a classifier: what all ranks find about its predictions of the test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch
from tfinpaint.probing.examples import read_pictures, spread_over_classes
from tfinpaint.report.calibration import Calibration
from tfinpaint.report.confused_images import Examples, confused_examples, merge_examples
from tfinpaint.report.confusion import Confusion
from tfinpaint.report.sample_images import SAMPLE_SIZE, Predicted
from tfinpaint.runs.build import output_activation
from tfinpaint.runs.data import DataSet
from tfinpaint.runs.session import Session


@dataclass(frozen=True)
class Evaluation:
    """The predictions of a classifier, summed up over the test images of all ranks.

    Attributes:
        confusion: images by true and predicted class.
        calibration: of the probabilities of the predicted classes.
        examples: images of the pairs of classes that are confused most often.
        predictions: of each image, in the order of the listing.
        sample: some images of all classes, chosen by chance.
        data: the test images.
    """

    confusion: Confusion
    calibration: Calibration
    examples: Examples
    predictions: Sequence[Predicted]
    sample: Sequence[Predicted]
    data: DataSet

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return some test images for a figure, float [images, height, width, channels], 0 to 1."""
        images = self.data.images
        return read_pictures(images.listing, indices, images.preprocessing.for_pictures())


def evaluate_classifier(session: Session) -> Evaluation | None:
    """Evaluate all held-out images; every rank calls this.

    Returns:
        The same on every rank; None where the held-out images have no labels.
    """
    data = session.held_out
    if data is None or not data.has_targets:
        return None
    are_logarithms = output_activation(session.run) == "log_softmax"
    parts = []

    def keep(batch: Batch, outputs: tf.Tensor) -> None:
        values = outputs.numpy()
        best = values.max(axis=1)
        parts.append((batch["targets"].numpy(), values.argmax(axis=1), np.exp(best) if are_logarithms else best))

    session.trainer.evaluate(data.evaluation_batches(), on_batch=keep)
    empty = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    true, predicted, confidence = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    gather, share = session.world.all_gather, data.images.share
    own = np.column_stack([true, predicted, np.ones_like(true)])
    shares = gather(Confusion.of(session.classes, [own]).pairs.tolist())
    confusion = Confusion.of(session.classes, [np.reshape(each, (-1, 3)) for each in shares])
    sums = gather(Calibration.of(confidence, true == predicted).sums.tolist())
    indices = np.array(share.indices(len(data)), np.int64)
    examples = gather(confused_examples(confusion, indices, true, predicted, confidence))
    found = gather([column.tolist() for column in (indices, true, predicted, confidence)])
    predictions = sorted(Predicted(*each) for part in found for each in zip(*part, strict=True))
    sample = [predictions[index] for index in spread_over_classes(data.images.listing.labels, SAMPLE_SIZE)]
    return Evaluation(confusion, Calibration.added(sums), merge_examples(examples), predictions, sample, data)
