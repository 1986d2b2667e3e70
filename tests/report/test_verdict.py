"""The conclusions about finished runs are true: pretraining helped, did not help, or the difference may be chance."""

from pathlib import Path

import numpy as np
import pytest

from tfinpaint.report.image_results import ImageResults
from tfinpaint.report.verdict import (
    classifier_verdict,
    few_images_warning,
    few_training_images,
    probe_verdict,
    restoration_verdict,
)


def run(accuracy, images, *, scratch, **changes):
    common = {"labels": 324, "label_fraction": 0.2, "epochs": 12, "trainable_parameters": 1000}
    return {"test_accuracy": accuracy, "test_images": images, "from_scratch": scratch, **common, **changes}


def verdict(ours, theirs, images, **changes):
    return classifier_verdict([run(ours, images, scratch=False), run(theirs, images, scratch=True, **changes)])


@pytest.mark.parametrize(
    ("ours", "theirs", "images", "expected"),
    [
        (
            169 / 179, 139 / 179, 179,
            "Pretraining helped: 169 of 179 test images (0.944) are classified correctly, against 139 (0.777) from scratch, with 324 "
            "labels. This is hardly chance (Fisher's exact test, as if each had other test images, p < 0.001).",
        ),
        (
            0.5, 0.75, 200,
            "Pretraining did not help: 100 of 200 test images (0.500) are classified correctly, against 150 (0.750) from scratch, with "
            "324 labels. This is hardly chance (Fisher's exact test, as if each had other test images, p < 0.001).",
        ),
        (
            5 / 8, 3 / 8, 8,
            "Whether pretraining helped is unknown: 5 of 8 test images (0.625) are classified correctly, against 3 (0.375) from "
            "scratch, with 324 labels. With so few test images, the difference could easily be chance (Fisher's "
            "exact test, as if each had other test images, p = 0.62).",
        ),
        (
            0.75, 0.75, 8,
            "Pretraining made no difference: 6 of 8 test images (0.750) are classified correctly, against 6 (0.750) from scratch, with "
            "324 labels.",
        ),
        (
            0.9, 0.85, 10000,
            "Pretraining helped: 0.900 of 10,000 test images are classified correctly, against 0.850 from scratch, with 324 labels. "
            "This is hardly chance (Fisher's exact test, as if each had other test images, p < 0.001).",
        ),
    ],
)  # fmt: skip
def test_the_sentence_is_true(ours, theirs, images, expected):
    assert verdict(ours, theirs, images) == [expected]


def test_other_differences_are_named():
    (sentence,) = verdict(0.9, 0.5, 200, epochs=30, trainable_parameters=50)
    assert sentence.endswith(
        "The runs were trained for different numbers of epochs: 12, from scratch 30. More for the one from scratch is "
        "fair, because random weights need more steps; tfinpaint run gives them three times as many on purpose. In the pretrained run 1,000 "
        "parameters were trained, from scratch 50."
    )


def test_the_same_accuracies_in_another_order_are_no_difference():
    accuracies = (0.901, 0.832, 0.777)
    assert np.mean(accuracies) != np.mean(accuracies[::-1])  # by their rounding
    runs = [run(each, 1000, scratch=False) for each in accuracies]
    runs += [run(each, 1000, scratch=True) for each in reversed(accuracies)]
    (sentence,) = classifier_verdict(runs)
    assert sentence.startswith("Pretraining made no difference: on average 836.7 of 1,000 test images (0.837)")


def test_the_mean_of_several_seeds_has_a_decimal_where_it_is_not_whole():
    runs = [run(right / 61, 61, scratch=False) for right in (42, 43)]
    scratch = [run(right / 61, 61, scratch=True) for right in (47, 48)]
    assert "on average 42.5 of 61 test images (0.697) are" in (sentence := classifier_verdict([*runs, *scratch])[0])
    assert "against 47.5 (0.779) from scratch" in sentence
    (sentence,) = classifier_verdict([*runs, run(44 / 61, 61, scratch=False), run(50 / 61, 61, scratch=True)])
    assert ": 43 of 61 test images (0.705) are classified correctly, against 50 (0.820) from scratch" in sentence
    (sentence,) = classifier_verdict([run(43 / 61, 61, scratch=False), *scratch])
    assert ": on average 43 of 61 test images" in sentence


def test_more_epochs_of_the_pretrained_run_are_not_excused():
    (sentence,) = verdict(0.9, 0.5, 200, epochs=6)
    assert sentence.endswith("The runs were trained for different numbers of epochs: 12, from scratch 6.")


def test_a_difference_that_is_nearly_significant_may_be_chance():
    (sentence,) = verdict(54 / 60, 46 / 60, 60)
    assert "54 of 60 test images (0.900) are" in sentence
    assert (
        "the difference may be chance (Fisher's exact test, as if each had other test images, p = 0.085)." in sentence
    )


def judged(ours_alone, theirs_alone, both, images, *, digests=("same", "same")):
    """Return the sentence about two classifiers that are right on these numbers of images, alone and together."""
    ours, theirs = (np.arange(images) < both for _ in range(2))
    ours[both : both + ours_alone] = True
    theirs[both + ours_alone : both + ours_alone + theirs_alone] = True
    runs = [run(ours.mean(), images, scratch=False), run(theirs.mean(), images, scratch=True)]
    tested = [
        ImageResults(Path(f"{digest}.csv"), digest, right)
        for digest, right in zip(digests, (ours, theirs), strict=True)
    ]
    (sentence,) = classifier_verdict(runs, tested)
    return sentence


def test_a_test_on_each_image_finds_smaller_differences_which_are_said_to_be_of_these_runs():
    # Of 10 images that only one has right, 9 or more of one kind: 2 * (10 + 1) / 2**10 = 0.0215.
    assert judged(9, 1, 45, 60) == (
        "Pretraining helped in these runs: 54 of 60 test images (0.900) are classified correctly, against 46 (0.767) from scratch, "
        "with 324 labels. On 9 test images only the pretrained classifier is right, on 1 only the one from scratch. This is hardly "
        "chance (a paired test on the same images, p = 0.021), but classifiers with other seeds may differ as much."
    )
    assert judged(1, 9, 45, 60).startswith("Pretraining did not help in these runs: 46 of 60 test images")
    other = judged(9, 1, 45, 60, digests="ab")
    assert "Fisher's exact test, as if each had other test images, p = 0.085" in other
    assert other.endswith(
        " Fisher's exact test is used in place of a paired one because b.csv has other images or classes than a.csv."
    )


def test_a_difference_on_few_images_may_be_chance():
    # The smallest p-value that two images can have is 2 / 2**2.
    assert judged(2, 0, 3, 8) == (
        "Whether pretraining helped is unknown: 5 of 8 test images (0.625) are classified correctly, against 3 (0.375) from scratch, "
        "with 324 labels. On 2 test images only the pretrained classifier is right, on 0 only the one from scratch. With so few test "
        "images, the difference could easily be chance (a paired test on the same images, p = 0.5)."
    )
    # Errors that exclude each other make a difference less sure than independent ones do: 38 to 22, Fisher's p is 0.0059.
    assert "is unknown" in (sentence := judged(38, 22, 0, 60))
    assert "may be chance (a paired test on the same images, p = 0.052)." in sentence


def test_a_difference_that_is_clear_in_both_tests_is_said_to_be_due_to_pretraining():
    assert judged(35, 5, 134, 179) == (
        "Pretraining helped: 169 of 179 test images (0.944) are classified correctly, against 139 (0.777) from scratch, with 324 "
        "labels. On 35 test images only the pretrained classifier is right, on 5 only the one from scratch. This is hardly chance (a "
        "paired test on the same images, p < 0.001)."
    )


def test_classes_with_very_few_training_images_are_named():
    counts = {"airplane": 45, "dog": 2, "cat": 46, "flower": 45}
    assert few_training_images(counts) == {"dog": 2}
    assert few_images_warning({"few_training_images": {"dog": 2}}) == [
        "Too few training images to learn from: dog (2 images). Expect nothing of this class before there are more."
    ]
    assert few_training_images(dict.fromkeys("abcdefghij", 2)) == {}  # as asked for
    assert few_training_images({}) == {}
    many = {str(number): 1 for number in range(7)}
    assert few_images_warning({"few_training_images": many})[0].startswith(
        "Too few training images to learn from: 0 (1 image), 1 (1 image), 2 (1 image), 3 (1 image), 4 (1 image) and 2 "
        "more. Expect nothing of these classes"
    )
    assert few_images_warning({}) == []


def test_runs_are_compared_where_labels_and_test_images_are_the_same():
    runs = [run(0.9, 100, scratch=False), run(0.5, 100, scratch=True, labels=65)]
    assert "no pretrained classifier has as many labels and test images" in classifier_verdict(runs)[0]
    runs += [run(0.8, 100, scratch=False), run(0.25, 100, scratch=True), run(0.75, 100, scratch=True)]
    runs += [run(0.7, 100, scratch=False, labels=65)]
    first, second = classifier_verdict(runs)
    assert (
        "85 of 100 test images (0.850) are classified correctly, against 50 (0.500) from scratch, with 324 labels"
        in first
    )
    assert (
        "70 of 100 test images (0.700) are classified correctly, against 50 (0.500) from scratch, with 65 labels"
        in second
    )
    runs = [run(0.5, 100, scratch=False, labels=None), run(0.25, 100, scratch=True, labels=None)]
    assert "with 20 % of the labels." in classifier_verdict(runs)[0]


def test_without_two_kinds_of_classifiers_nothing_is_claimed():
    assert classifier_verdict([{"pretrain_loss": 0.5}, run(0.9, 100, scratch=True)]) == []
    (sentence,) = classifier_verdict([run(0.9, 100, scratch=False), run(float("nan"), 100, scratch=True)])
    assert "is unknown without a classifier trained from scratch" in sentence


def test_restorations_are_compared_with_the_baselines():
    def measured(**values):
        return {"measurements": {name: {"hole_psnr_db": value} for name, value in values.items()}}

    better = restoration_verdict(measured(network=17.62, mean_colour=12.9, biharmonic=17.18))
    assert better.endswith("17.62 dB, more than every classical baseline (the best, biharmonic: 17.18 dB).")
    worse = restoration_verdict(measured(network=9.59, mean_colour=9.5, nearest=19.0, biharmonic=22.57))
    assert "9.59 dB; classical baselines restore them better (biharmonic 22.57 dB, nearest 19.00 dB)" in worse
    one = {**measured(network=17.6, nearest=18.0, mean_colour=9.5), "test_images": 1}
    assert "of 1 test image with a mean PSNR of 17.60 dB; a classical baseline restores them better (nearest" in (
        restoration_verdict(one)
    )
    assert "restores the holes of 7 test images with a mean PSNR of 17.62 dB" in restoration_verdict(
        {**measured(network=17.62, nearest=12.9), "test_images": 7}
    )
    assert restoration_verdict({}) == ""
    assert restoration_verdict(measured(network=float("nan"), nearest=1.0)) == ""


def test_the_best_features_of_pretraining_are_compared_with_random_ones():
    summary = {"best_probe_epoch": 40, "best_probe_accuracy": 0.7124, "random_probe_accuracy": 0.634}
    assert probe_verdict(summary) == (
        "The features of stage 5 were best after epoch 40: logistic regression on labelled images has an accuracy of "
        "0.712, and 0.634 on a random encoder."
    )
    for missing in summary:
        if missing != "best_probe_epoch":
            assert probe_verdict({name: value for name, value in summary.items() if name != missing}) is None
