"""Sum up finished runs in sentences: whether pretraining helped, and how well images are restored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfinpaint.config.sections import FEW_OF_A_CLASS
from tfinpaint.report.paired import Pairs, Tested, compare_pairs, why_not_paired
from tfinpaint.system.wording import counted, percent

Summary = Mapping[str, Any]  # of a run, as in summary.json

SIGNIFICANCE = 0.05  # a difference with a larger p-value may be due to chance
EASILY = 0.2  # p-value above which chance is a likely reason
MOST_CLASSES = 5  # that a sentence names
TESTED = "tested"  # key of the results on each image, beside the figures of a summary
FEW_IMAGES = 1000  # up to this number of test images, the sentences give numbers beside shares


def classifier_verdict(summaries: Sequence[Summary], tested: Sequence[Tested] = ()) -> list[str]:
    """Return a sentence for each setting in which classifiers were trained both from pretrained and random weights.

    Runs have one setting if they have the same numbers of labels and of test images. Of several runs of a kind, the
    mean accuracy is used. Whether the choice of the test images explains a difference is decided by a test of the
    classifiers on each image, or, where these results are not known, by Fisher's exact test. That one takes the
    classifiers for independent, and so finds large differences only. A difference that the test on each image alone
    finds is said to be one of these runs, because it is hardly larger than those between runs with other seeds.

    Args:
        summaries: those of any runs; runs that are not tested classifiers are ignored.
        tested: the results on each test image, of each run, or why they cannot be used; () where none are known.

    Returns:
        Sentences; [] if no pretrained classifier was tested.
    """
    known = tested or [None] * len(summaries)
    runs = [{**run, TESTED: each} for run, each in zip(summaries, known, strict=True)]
    runs = [run for run in runs if _is_number(run.get("test_accuracy")) and "from_scratch" in run]
    pretrained = _by_setting([run for run in runs if not run["from_scratch"]])
    scratch = _by_setting([run for run in runs if run["from_scratch"]])
    if not pretrained:
        return []
    if not scratch:
        return [
            "Whether pretraining helped is unknown without a classifier trained from scratch; train one with "
            "--set checkpoints.load=null and another --workdir."
        ]
    sentences = [
        _compared(group, scratch[setting])
        for setting, groups in pretrained.items()
        if setting in scratch
        for group in _by_trained(groups)
    ]
    return sentences or [
        "Whether pretraining helped is unknown: no pretrained classifier has as many labels and test images as one "
        "trained from scratch."
    ]


def few_images_warning(summary: Summary) -> list[str]:
    """Return a sentence about classes that a classifier cannot learn, for want of training images; [] without any."""
    few = summary.get("few_training_images")
    if not isinstance(few, Mapping) or not few:
        return []
    named = [f"{name} ({counted(count, 'image')})" for name, count in list(few.items())[:MOST_CLASSES]]
    more = f" and {len(few) - MOST_CLASSES} more" if len(few) > MOST_CLASSES else ""
    return [
        f"Too few training images to learn from: {', '.join(named)}{more}. Expect nothing of "
        f"{'this class' if len(few) == 1 else 'these classes'} before there are more."
    ]


def few_training_images(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the classes with very few training images, though others have many; fewest first.

    Where all classes have few, that is what was asked for, such as by `data.label_fraction`.

    Args:
        counts: class -> number of its training images.
    """
    usual = float(np.median(list(counts.values()))) if counts else 0.0
    few = {name: count for name, count in counts.items() if count < FEW_OF_A_CLASS and count < usual / 2}
    return dict(sorted(few.items(), key=lambda each: each[1]))


def probe_verdict(summary: Summary) -> str | None:
    """Return a sentence about the probe of a pretraining run; None for a run without one."""
    best, random = (summary.get(name) for name in ("best_probe_accuracy", "random_probe_accuracy"))
    if not _is_number(best) or not _is_number(random):
        return None
    return (
        f"The features of stage 5 were best after epoch {summary['best_probe_epoch']}: logistic regression on labelled "
        f"images has an accuracy of {best:.3f}, and {random:.3f} on a random encoder."
    )


def restoration_verdict(summary: Summary) -> str:
    """Return a sentence that compares a run's restorations with the baselines; "" if they were not measured."""
    name = "hole_psnr_db"
    measured = {kind: values[name] for kind, values in summary.get("measurements", {}).items() if name in values}
    network = measured.pop("network", None)
    if not _is_number(network) or not measured:
        return ""
    assert network is not None
    images = summary.get("test_images")
    of = _test_images(images) if images else "the test images"
    first = f"The network restores the holes of {of} with a mean PSNR of {network:.2f} dB"
    better = sorted((kind for kind in measured if measured[kind] > network), key=lambda kind: -measured[kind])
    if not better:
        best = max(measured, key=lambda kind: measured[kind])
        return f"{first}, more than every classical baseline (the best, {_spaced(best)}: {measured[best]:.2f} dB)."
    named = ", ".join(f"{_spaced(kind)} {measured[kind]:.2f} dB" for kind in better)
    baselines = "a classical baseline restores" if len(better) == 1 else "classical baselines restore"
    return (
        f"{first}; {baselines} them better ({named}). This is usual after a short training, and says little about the "
        "encoder's features: a classifier shows their quality."
    )


def _compared(pretrained: Sequence[Summary], scratch: Sequence[Summary]) -> str:
    """Return a sentence about two groups of runs, with more sentences if they differ in other respects."""
    images = int(pretrained[0].get("test_images") or 0)
    ours, theirs = (float(np.mean([run["test_accuracy"] for run in runs])) for runs in (pretrained, scratch))
    few = 0 < images <= FEW_IMAGES
    of = f"of {_test_images(images)}" if images else "of the test images"
    us, them = f"{ours:.3f} {of}", f"{theirs:.3f}"
    if few:
        right = [_right_images(runs, images) for runs in (pretrained, scratch)]
        us, them = f"{right[0]} {of} ({ours:.3f})", f"{right[1]} ({theirs:.3f})"
        if any("." in number for number in right):
            us = f"on average {us}"
    facts = f"{us} are classified correctly, against {them} from scratch, with {_labels(pretrained[0])}."
    if math.isclose(ours, theirs):  # means of the same accuracies in another order may differ by their rounding
        sentence = f"Pretraining made no difference: {facts}"
    else:
        tested = [[run[TESTED] for run in runs] for runs in (pretrained, scratch)]
        helped = "helped" if ours > theirs else "did not help"
        sentence = _judged(helped, facts, _p_value(ours, theirs, images), compare_pairs(*tested))
        if why := why_not_paired([*tested[0], *tested[1]]):
            sentence += f" Fisher's exact test is used in place of a paired one because {why}."
    return " ".join([sentence, *_differences(pretrained, scratch)])


def _right_images(runs: Sequence[Summary], images: int) -> str:
    """Return how many images are right in the mean of these runs, with a decimal where that is not whole."""
    mean = sum(round(run["test_accuracy"] * images) for run in runs) / len(runs)
    return f"{mean:.0f}" if mean.is_integer() else f"{mean:.1f}"


def _judged(helped: str, facts: str, independent: float, pairs: Pairs | None) -> str:
    """Return the facts about a difference with what the choice of the test images and the seeds have to do with it.

    Args:
        helped: what the difference says, if it is not due to chance.
        independent: p-value of Fisher's exact test.
        pairs: the comparison on each image; None where it is not known.
    """
    probability, test = independent, "Fisher's exact test, as if each had other test images"
    if pairs:
        probability, test = pairs.probability, "a paired test on the same images"
        facts = f"{facts} {pairs.sentence()}"
    test = f"{test}, {_p(probability)}"
    if probability > SIGNIFICANCE:
        chance = f"the difference {'could easily' if probability > EASILY else 'may'} be chance ({test})"
        return f"Whether pretraining helped is unknown: {facts} With so few test images, {chance}."
    if independent > SIGNIFICANCE:
        seeds = "but classifiers with other seeds may differ as much"
        return f"Pretraining {helped} in these runs: {facts} This is hardly chance ({test}), {seeds}."
    return f"Pretraining {helped}: {facts} This is hardly chance ({test})."


def _p(probability: float) -> str:
    return "p < 0.001" if probability < 0.001 else f"p = {probability:.2g}"


def _differences(pretrained: Sequence[Summary], scratch: Sequence[Summary]) -> list[str]:
    """Return sentences about other differences between two groups of runs."""
    found = []
    epochs = [sorted({run.get("epochs") for run in runs}, key=str) for runs in (pretrained, scratch)]
    if epochs[0] != epochs[1]:
        ours, theirs = (" or ".join(map(str, each)) for each in epochs)
        found.append(f"The runs were trained for different numbers of epochs: {ours}, from scratch {theirs}.")
        known = [[number for number in each if isinstance(number, int)] for each in epochs]
        if known == epochs and min(known[1]) > max(known[0]):
            found.append(
                "More for the one from scratch is fair, because random weights need more steps; tfinpaint run gives "
                "them three times as many on purpose."
            )
    trained = [runs[0].get("trainable_parameters") for runs in (pretrained, scratch)]
    if all(trained) and trained[0] != trained[1]:
        found.append(f"In the pretrained run {trained[0]:,} parameters were trained, from scratch {trained[1]:,}.")
    return found


def _p_value(a: float, b: float, images: int) -> float:
    """Return the two-sided p-value of a difference in accuracy, if the classifiers are equally good."""
    from scipy.stats import fisher_exact

    right = [round(share * images) for share in (a, b)]
    return float(fisher_exact([[number, images - number] for number in right])[1])


def _by_setting(runs: Sequence[Summary]) -> dict[tuple[Any, ...], list[Summary]]:
    settings: dict[tuple[Any, ...], list[Summary]] = {}
    for run in runs:
        labels = run.get("labels") or run.get("label_fraction")
        settings.setdefault((labels, run.get("test_images")), []).append(run)
    return settings


def _by_trained(runs: Sequence[Summary]) -> list[list[Summary]]:
    """Return groups of runs with the same number of trained parameters."""
    groups: dict[Any, list[Summary]] = {}
    for run in runs:
        groups.setdefault(run.get("trainable_parameters"), []).append(run)
    return list(groups.values())


def _labels(run: Summary) -> str:
    if labels := run.get("labels"):
        return counted(labels, "label")
    return f"{percent(run['label_fraction'])} of the labels" if run.get("label_fraction") else "the same labels"


def _test_images(count: int) -> str:
    return counted(count, "test image")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _spaced(baseline: str) -> str:
    return baseline.replace("_", " ")
