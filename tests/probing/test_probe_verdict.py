"""The sentences about a probe: what stands in them, and which differences are called clear."""

import numpy as np
from conftest import write_images

from tfinpaint.data.listing.duplicates import Copy
from tfinpaint.data.listing.listing import list_class_folders
from tfinpaint.probing.evaluation import ALL_STAGES, Row, Score
from tfinpaint.probing.images import LabelledImages
from tfinpaint.probing.verdict import choice_verdict, duplicates_verdict, few_images_verdict, verdict

IMAGES = 400


def row(name: str, stage: int | None, accuracies: list[float], validated: list[float | None] | None = None) -> Row:
    """A row whose first test images are the ones that are right; at 10 % and at 100 % of the labels."""
    scores = []
    for share, accuracy, of in zip((0.1, 1.0), accuracies, validated or accuracies, strict=True):
        right = (np.arange(IMAGES) < accuracy * IMAGES).astype(float)
        scores.append(Score(share, round(6000 * share), (accuracy,), (0.5,), (1.0,), (of,), right))
    return Row(name, stage, "", 8, tuple(scores), np.zeros((IMAGES, 2)))


OTHERS = [row("raw pixels", None, [0.70, 0.76]), row("HOG", None, [0.74, 0.79])]


def test_the_first_sentence_is_about_ten_percent():
    rows = [row("runs/x", 5, [0.71, 0.78]), row("random encoder", 5, [0.64, 0.77]), *OTHERS]
    found = verdict(rows, "runs/x")
    error = 100 * np.sqrt(0.07 * 0.93 / (IMAGES - 1))
    assert found[0] == (
        f"Stage 5 of runs/x: 0.710 at 10 % of the labels (600), 7.0 ± {error:.1f} points above the better random "
        "encoder (0.640); raw pixels have 0.700 and HOG has 0.740."
    )
    assert found[1].startswith("Stage 5 of runs/x: 0.780 at 100 % of the labels (6,000), 1.0 ± 0.5 points above")
    assert "400 test images" in found[-1]


def test_labels_that_have_chosen_the_checkpoint_are_named_where_a_share_has_fewer():
    rows = [row("x", 5, [0.71, 0.78])]  # 600 and 6,000 labels
    (sentence,) = choice_verdict(rows, 1000)
    assert sentence.startswith(
        "The probe in pretraining has chosen this checkpoint by about 1,000 labelled images: more "
    )
    assert "than there are with 10 % of the labels." in sentence
    assert choice_verdict(rows, 600) == choice_verdict(rows, 0) == []


def test_a_difference_below_two_standard_errors_may_be_chance():
    rows = [row("x", 5, [0.64, 0.5]), row("random encoder", 5, [0.645, 0.6]), *OTHERS]
    found = verdict(rows, "x")
    assert "0.5 ± 0.4 points below the better random encoder (0.645), which may be due to chance; raw" in found[0]
    assert "10.0 ± 1.5 points below the better random encoder (0.600); raw" in found[1]


def test_the_best_depth_is_that_of_the_validation():
    rows = [
        row("x", 4, [0.8, 0.8], [0.6, 0.8]),
        row("x", 5, [0.7, 0.7], [0.7, 0.7]),
        row("random encoder", 5, [0.5, 0.5]),
        row("random encoder", ALL_STAGES, [0.6, 0.6], [0.4, 0.7]),
        *OTHERS,
    ]
    found = verdict(rows, "x")
    start = "At the depth that cross-validation prefers, with"
    assert f"{start} 10 % of the labels: stage 5 of x has 0.700, stage 5 of random encoder has 0.500." in found
    assert f"{start} 100 % of the labels: stage 4 of x has 0.800, stages 2 to 5 of random encoder have 0.600." in found


def test_a_depth_that_validation_could_not_choose_is_not_named():
    rows = [row("x", 5, [0.7, 0.7], [None, 0.7]), row("random encoder", 5, [0.6, 0.6], [None, 0.6]), *OTHERS]
    assert not any("with 10 % of the labels" in sentence for sentence in verdict(rows, "x"))


def test_near_duplicates_come_with_the_accuracies_without_them(tmp_path):
    listing = list_class_folders(write_images(tmp_path, {"a": 200, "b": 200}, size=(2, 2)))
    rows = [row("x", 5, [0.7, 0.8]), row("random encoder", 5, [0.6, 0.6]), *OTHERS]
    copies = [Copy(place, 3, "mirrored") for place in range(40)]  # all of them are right
    assert duplicates_verdict(rows, "x", LabelledImages(listing, listing, True, copies)) == (
        "40 of 400 test images (10.0 %) are near-duplicates of training images (0 identical, 0 nearly identical, "
        "40 mirrored). Without them, stage 5 of x has 0.667 instead of 0.700 at 10 % of the labels, 0.778 instead of "
        "0.800 at 100 % of the labels."
    )
    every = LabelledImages(listing, listing, True, [Copy(place, place, "identical") for place in range(400)])
    assert duplicates_verdict(rows, "x", every).endswith("so the accuracies say nothing about new images.")
    none = LabelledImages(listing, listing, True, [])
    assert duplicates_verdict(rows, "x", none) == "No test image is a near-duplicate of a training image."
    assert few_images_verdict(none) == []


def test_classes_with_few_test_images_are_named(tmp_path):
    listing = list_class_folders(write_images(tmp_path, {"a": 5, "b": 4, "c": 1}, size=(2, 2)))
    assert few_images_verdict(LabelledImages(listing, listing, True, [])) == [
        "Classes with fewer than 5 test images: b (4), c (1); what is measured of such a class says little."
    ]
