"""Probe an encoder: features of all images by all encoders, classifiers on them, and what they show."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfinpaint.data.listing.duplicates import duplicates_json
from tfinpaint.data.listing.listing import Listing, fraction_indices
from tfinpaint.probing.baselines import pixels_and_gradients, random_encoders
from tfinpaint.probing.encoder import Source
from tfinpaint.probing.evaluation import (
    SELECTION_IMAGES,
    FeatureSet,
    Row,
    better_random,
    evaluate_sets,
    stage_sets,
)
from tfinpaint.probing.features import StageFeatures, extract_features
from tfinpaint.probing.images import LabelledImages
from tfinpaint.probing.shares import draw_labels
from tfinpaint.probing.verdict import (
    GRADIENTS,
    PIXELS,
    choice_verdict,
    duplicates_verdict,
    few_images_verdict,
    verdict,
)

log = logging.getLogger(__name__)

_SELECTION_SEED = 2**31 + 1  # beyond the seeds of the draws of labels


@dataclass(frozen=True)
class Study:
    """The results of a probe.

    Attributes:
        images: that were used.
        rows: the results, a row for each set of features: the encoder's, the random encoder's, then the others.
        sets: the features of each row.
        sentences: what was found.
        facts: about the images and the encoders, as JSON values.
    """

    images: LabelledImages
    rows: Sequence[Row]
    sets: Sequence[FeatureSet]
    sentences: Sequence[str]
    facts: Mapping[str, Any]


def study(
    source: Source, others: Sequence[Source], images: LabelledImages, shares: Sequence[float], repeats: int
) -> Study:
    """Probe an encoder beside others, random ones, raw pixels and histograms of gradients.

    Args:
        others: more encoders, each a row of its own.
        shares: fractions of the training images whose labels are used, in (0, 1].
        repeats: number of draws of each share below 1.

    Raises:
        UserError: An image can no longer be read, or features are not finite.
    """
    train_labels, test_labels = images.train.labels.astype(np.int64), images.test.labels.astype(np.int64)
    candidates = random_encoders(source, images.train)
    features = _features(source, others, candidates, images)
    sets = [*stage_sets(source.name, *features[source.name])]
    sets += better_random(
        {detail: features[detail] for detail in candidates}, train_labels, _for_selection(images.train)
    )
    for other in others:
        sets += stage_sets(other.name, *features[other.name])
    pictures = [pixels_and_gradients(listing, source.pictures) for listing in (images.train, images.test)]
    sets += [
        FeatureSet(name, None, *both)
        for name, both in zip((PIXELS, GRADIENTS), zip(*pictures, strict=True), strict=True)
    ]
    rows = evaluate_sets(
        sets, draw_labels(images.train, shares, repeats), train_labels, test_labels, len(images.train.classes)
    )
    sentences = [
        *verdict(rows, source.name), *choice_verdict(rows, source.labels_of_choice), *few_images_verdict(images),
    ]  # fmt: skip
    duplicates = duplicates_verdict(rows, source.name, images)
    sentences = [duplicates, *sentences] if images.copies else [*sentences, duplicates]
    return Study(images, rows, sets, sentences, _facts(source, others, images))


def _features(
    source: Source, others: Sequence[Source], candidates: Mapping[str, Any], images: LabelledImages
) -> dict[str, tuple[StageFeatures, StageFeatures]]:
    """Return the features of training and test images by each encoder; one pass serves all that see the same inputs."""
    passes = [(source.preprocessing, {source.name: (source.encoder, source.model), **candidates})]
    for other in others:
        same = next((models for preprocessing, models in passes if preprocessing == other.preprocessing), None)
        if same is None:
            passes.append((other.preprocessing, same := {}))
        same[other.name] = other.encoder, other.model
    found: dict[str, tuple[StageFeatures, StageFeatures]] = {}
    for preprocessing, models in passes:
        train, test = (extract_features(listing, preprocessing, models) for listing in (images.train, images.test))
        found |= {name: (train[name], test[name]) for name in models}
    return found


def _for_selection(train: Listing) -> np.ndarray:
    """Return the training images by which the better random encoder is chosen."""
    return fraction_indices(train, min(1.0, SELECTION_IMAGES / len(train)), _SELECTION_SEED)


def _facts(source: Source, others: Sequence[Source], images: LabelledImages) -> dict[str, Any]:
    classes = images.train.classes
    counts = {
        part: np.bincount(listing.labels, minlength=len(classes)).tolist()
        for part, listing in (("train", images.train), ("test", images.test))
    }
    return {
        "encoders": [
            {"name": each.name, "architecture": each.encoder, "image_shape": list(each.shape)}
            for each in (source, *others)
        ],
        "classes": list(classes),
        "images": counts,
        "test_images_are": "a fifth of each class, set aside" if images.held_out else "a folder of their own",
        "duplicates": duplicates_json(images.copies, images.test, images.train),
    }
