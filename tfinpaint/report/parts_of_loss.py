"""The reconstruction loss beside the total loss, where training has terms that evaluations do not compute.

The agreement of two views is computed in training alone. The losses of training and test are then different quantities;
those of the reconstruction are the same quantity in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RECONSTRUCTION, AGREEMENT = "reconstruction_loss", "agreement_loss"  # in the records of metrics.jsonl
LIKE_FOR_LIKE = (f"train_{RECONSTRUCTION}", f"test_{RECONSTRUCTION}", f"best_test_{RECONSTRUCTION}")  # in summary.json


def compares_views(records: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a run compares views in training, from its records of metrics.jsonl."""
    return any(AGREEMENT in record for record in records)


def reconstruction_figures(records: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> dict[str, Any]:
    """Return the entries of a summary about the reconstruction loss, of a run that compares views too; {} for others.

    Args:
        records: of metrics.jsonl, also of runs of older versions, whose summary lacks these entries.
        best_epoch: that of the best checkpoint; None where it is not known.
    """
    if not compares_views(records):
        return {}
    found = {(record["phase"], record["epoch"]): record for record in records if RECONSTRUCTION in record}
    last = {phase: record for (phase, _), record in found.items()}
    figures = {f"{phase}_{RECONSTRUCTION}": last[phase][RECONSTRUCTION] for phase in ("train", "test") if phase in last}
    if best := found.get(("test", best_epoch or 0)):
        figures[f"best_test_{RECONSTRUCTION}"] = best[RECONSTRUCTION]
    return figures


def like_for_like(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary as tables show it: a training loss of more terms than the test loss is not named alike."""
    if not any(name in summary for name in LIKE_FOR_LIKE):
        return dict(summary)
    shown = dict(summary)
    for trained in ("pretrain_loss", "train_loss"):
        if trained in shown:
            shown["total_train_loss"] = shown.pop(trained)
    for prefix in ("test", "best_test"):
        if f"{prefix}_{RECONSTRUCTION}" in shown:
            shown.pop(f"{prefix}_loss", None)
    return shown
