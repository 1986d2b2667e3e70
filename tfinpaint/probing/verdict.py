"""Say in sentences what a probe has found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfinpaint.data.listing.duplicates import compares_contents, count_duplicates
from tfinpaint.probing.evaluation import ALL_STAGES, Row, Score
from tfinpaint.probing.images import LabelledImages
from tfinpaint.system.wording import percent

RANDOM, PIXELS, GRADIENTS = "random encoder", "raw pixels", "HOG"
LAST_STAGE = 5
FEW_IMAGES = 5  # test images of a class: with fewer, its recall is hardly measured
MOST_NAMED = 5  # classes in a sentence
CLEAR = 2.0  # standard errors: a smaller difference may be due to chance


def stage_text(stage: int | None) -> str:
    """Return what a row calls its stage."""
    return "" if stage is None else "stages 2 to 5" if stage == ALL_STAGES else f"stage {stage}"


def verdict(rows: Sequence[Row], name: str) -> list[str]:
    """Return sentences about the encoder `name`: its last stage at each share of the labels, then its best depth."""
    shares = range(len(rows[0].scores))
    sentences = [
        _last_stage(rows, name, place) for place in sorted(shares, key=lambda place: _by_interest(rows, place))
    ]
    sentences += [sentence for place in shares if (sentence := _best_depth(rows, name, place))]
    images = len(rows[0].scores[0].right)
    return [
        *sentences,
        f"Accuracies are of logistic regression on {images} test images. A difference is given with its standard error "
        "over these images; other draws of labels and other initial weights add to it.",
    ]


def duplicates_verdict(rows: Sequence[Row], name: str, images: LabelledImages) -> str:
    """Return a sentence about near-duplicates among the test images, and what they change for the last stage."""
    if not images.copies:
        are_compared = compares_contents(len(images.test), len(images.train))
        return (
            "No test image is a near-duplicate of a training image."
            if are_compared
            else "No test image has the thumbnail of a training image; of so many images, others are not compared."
        )
    found = count_duplicates(images.copies, len(images.test))
    distinct = images.distinct
    if not distinct.any():
        return f"{found}. No other test image is left, so the accuracies say nothing about new images."
    scores = [_score(rows, name, LAST_STAGE, place) for place in range(len(rows[0].scores))]
    changes = [
        f"{score.accuracy_on(distinct):.3f} instead of {score.accuracy:.3f} at {percent(score.share)} of the labels"
        for score in scores
    ]
    return f"{found}. Without them, stage {LAST_STAGE} of {name} has {', '.join(changes)}."


def choice_verdict(rows: Sequence[Row], labels_of_choice: int) -> list[str]:
    """Return a sentence where the probe in pretraining has chosen the encoder by more labels than a share has.

    Args:
        labels_of_choice: the number of these labels; 0 if no labels have chosen the encoder.
    """
    fewer = [percent(score.share) for score in rows[0].scores if score.labels < labels_of_choice]
    if not fewer:
        return []
    return [
        f"The probe in pretraining has chosen this checkpoint by about {labels_of_choice:,} labelled images: more than "
        f"there are with {' and '.join(fewer)} of the labels. Name a checkpoint of a fixed epoch for a result that "
        "owes nothing to these labels."
    ]


def few_images_verdict(images: LabelledImages) -> list[str]:
    """Return a sentence that names the classes with few test images; [] if there are none."""
    counts = np.bincount(images.test.labels, minlength=len(images.train.classes))
    few = [f"{images.train.classes[place]} ({counts[place]})" for place in np.flatnonzero(counts < FEW_IMAGES)]
    if not few:
        return []
    named = f"{', '.join(few[:MOST_NAMED])}{', ...' * (len(few) > MOST_NAMED)}"
    return [f"Classes with fewer than {FEW_IMAGES} test images: {named}; what is measured of such a class says little."]


def _by_interest(rows: Sequence[Row], place: int) -> float:
    """Return a number that is smallest for the share nearest to 10 %, which the first sentence is about."""
    return abs(float(np.log10(rows[0].scores[place].share)) + 1)


def _last_stage(rows: Sequence[Row], name: str, place: int) -> str:
    ours = _score(rows, name, LAST_STAGE, place)
    others = [
        f"{each} {'have' if each == PIXELS else 'has'} {_score(rows, each, None, place).accuracy:.3f}"
        for each in (PIXELS, GRADIENTS)
    ]
    compared = _compared(ours, _score(rows, RANDOM, LAST_STAGE, place))
    labels = f"{percent(ours.share)} of the labels ({ours.labels:,})"
    return f"Stage {LAST_STAGE} of {name}: {ours.accuracy:.3f} at {labels}, {compared}; {' and '.join(others)}."


def _compared(ours: Score, theirs: Score) -> str:
    """Return how the better random encoder compares."""
    difference = ours.right - theirs.right
    points, error = 100 * float(difference.mean()), 100 * standard_error(difference)
    found = f"{abs(points):.1f} ± {error:.1f} points {'above' if points >= 0 else 'below'} the better random encoder"
    unclear = ", which may be due to chance" if abs(points) < CLEAR * error else ""
    return f"{found} ({theirs.accuracy:.3f}){unclear}"


def _best_depth(rows: Sequence[Row], name: str, place: int) -> str:
    """Return which depth of both encoders is best; "" where cross-validation could not tell."""
    found = []
    for each in (name, RANDOM):
        depths = [row for row in rows if row.name == each and row.scores[place].validation is not None]
        if not depths:
            return ""
        best = max(depths, key=lambda row: row.scores[place].validation or 0.0)
        have = "have" if best.stage == ALL_STAGES else "has"
        found.append(f"{stage_text(best.stage)} of {each} {have} {best.scores[place].accuracy:.3f}")
    labels = percent(rows[0].scores[place].share)
    return f"At the depth that cross-validation prefers, with {labels} of the labels: {found[0]}, {found[1]}."


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of a mean over test images; 0 for a single image."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _score(rows: Sequence[Row], name: str, stage: int | None, place: int) -> Score:
    return next(row for row in rows if (row.name, row.stage) == (name, stage)).scores[place]
