"""What finished runs say, in sentences: whether pretraining helped, and how well images are restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Summary = Mapping[str, Any]  # of a run, as in summary.json

CHANCE = 0.05  # differences that chance alone makes more often than this are not taken for real
FEW_IMAGES = 1000  # up to so many test images, numbers of images stand beside the shares


def classifier_verdict(summaries: Sequence[Summary]) -> list[str]:
    """Return a sentence for each setting in which classifiers were trained both from pretrained and random weights.

    Runs are of one setting if they have the same numbers of labels and of test images. Of several runs of a kind, the
    mean accuracy counts. Whether a difference is more than chance is Fisher's exact test on the test images that are
    right and wrong; runs of other seeds differ by more.

    Args:
        summaries: of any runs; those that are no tested classifiers are passed over.

    Returns:
        [] where there are no classifiers that were trained and tested.
    """
    runs = [run for run in summaries if _is_number(run.get("test_accuracy")) and "from_scratch" in run]
    pretrained = _by_setting([run for run in runs if not run["from_scratch"]])
    scratch = _by_setting([run for run in runs if run["from_scratch"]])
    if not pretrained:
        return []
    if not scratch:
        return [
            "Whether pretraining helped cannot be told without a classifier from scratch beside it; train one with "
            "--set checkpoints.load=null and another --workdir."
        ]
    sentences = [
        _compared(group, scratch[setting])
        for setting, groups in pretrained.items()
        if setting in scratch
        for group in _by_trained(groups)
    ]
    return sentences or [
        "Whether pretraining helped cannot be told: no pretrained classifier has as many labels and test images as one "
        "from scratch."
    ]


def restoration_verdict(summary: Summary) -> str:
    """Return a sentence on the restorations of a run, beside the baselines; "" where they were not measured."""
    name = "hole_psnr_db"
    measured = {kind: values[name] for kind, values in summary.get("measurements", {}).items() if name in values}
    network = measured.pop("network", None)
    if not _is_number(network) or not measured:
        return ""
    assert network is not None
    first = f"The network restores the holes of the test images with a PSNR of {network:.2f} dB"
    better = sorted((kind for kind in measured if measured[kind] > network), key=lambda kind: -measured[kind])
    if not better:
        best = max(measured, key=lambda kind: measured[kind])
        return f"{first}, more than every classical baseline (the best, {_in_words(best)}: {measured[best]:.2f} dB)."
    named = ", ".join(f"{_in_words(kind)} {measured[kind]:.2f} dB" for kind in better)
    return (
        f"{first}; classical baselines restore them better ({named}). This is usual after a short training and says "
        "little of the encoder's features: those are judged by a classifier."
    )


def _compared(pretrained: Sequence[Summary], scratch: Sequence[Summary]) -> str:
    """A sentence, and more of them where the runs differ in other respects, or chance may explain it."""
    images = int(pretrained[0].get("test_images") or 0)
    ours, theirs = (float(np.mean([run["test_accuracy"] for run in runs])) for runs in (pretrained, scratch))
    few = 0 < images <= FEW_IMAGES
    us, them = (f"{share:.3f}{f' ({round(share * images)})' if few else ''}" for share in (ours, theirs))
    of = f"of {images} test images" if images else "of the test images"
    facts = f"{us} {of} are right, against {them} from scratch, with {_labels(pretrained[0])}."
    probability = _by_chance(ours, theirs, images)
    if ours == theirs:
        sentence = f"Pretraining made no difference: {facts}"
    elif probability > CHANCE:
        sentence = (
            f"Whether pretraining helped cannot be told: {facts} Among so few test images, chance alone makes such a "
            f"difference in {100 * probability:.0f} of 100 cases."
        )
    else:
        sentence = f"Pretraining {'helped' if ours > theirs else 'did not help'}: {facts}"
    return " ".join([sentence, *_differences(pretrained, scratch)])


def _differences(pretrained: Sequence[Summary], scratch: Sequence[Summary]) -> list[str]:
    """Sentences on what else is not the same in two groups of runs."""
    found = []
    epochs = [sorted({run.get("epochs") for run in runs}, key=str) for runs in (pretrained, scratch)]
    if epochs[0] != epochs[1]:
        ours, theirs = (" or ".join(map(str, each)) for each in epochs)
        found.append(f"The runs were not trained alike: {ours} epochs, from scratch {theirs}.")
    trained = [runs[0].get("trainable_parameters") for runs in (pretrained, scratch)]
    if all(trained) and trained[0] != trained[1]:
        found.append(f"Of the pretrained one {trained[0]:,} parameters were trained, from scratch {trained[1]:,}.")
    return found


def _by_chance(a: float, b: float, images: int) -> float:
    """The probability of such a difference, or a larger one, of two classifiers that are equally good; two-sided."""
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
    """Runs of which the same number of parameters were trained, together."""
    groups: dict[Any, list[Summary]] = {}
    for run in runs:
        groups.setdefault(run.get("trainable_parameters"), []).append(run)
    return list(groups.values())


def _labels(run: Summary) -> str:
    if labels := run.get("labels"):
        return f"{labels:,} labels"
    return f"{100 * run['label_fraction']:g} % of the labels" if run.get("label_fraction") else "the same labels"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _in_words(baseline: str) -> str:
    return baseline.replace("_", " ")
