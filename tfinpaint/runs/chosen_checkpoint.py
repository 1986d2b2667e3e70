"""Say at the end of a run which checkpoints it has, and which of them later commands take."""

from __future__ import annotations

from pathlib import Path

from tfinpaint.checkpoint.find import (
    BY_LOSS,
    CRITERIA,
    BestCheckpoint,
    Criterion,
    checkpoints_folder,
    find_best,
    find_reported,
    find_weights,
    newest_checkpoint,
)
from tfinpaint.layout import SUMMARY
from tfinpaint.report.parts_of_loss import RECONSTRUCTION
from tfinpaint.storage.safe_json import read_json
from tfinpaint.system.paths import display_path


def _value(run: Path, by: Criterion, best: BestCheckpoint) -> str:
    """Return the value of the best checkpoint, by the name and in the size that the log has; "" if it is not known."""
    summary = read_json(run / SUMMARY)
    part = summary.get(f"best_test_{RECONSTRUCTION}") if isinstance(summary, dict) and by is BY_LOSS else None
    if isinstance(part, float):
        return f"; reconstruction {part:.4f}"
    return "" if best.value is None else f", {best.value:.4g}"


def describe_checkpoints(run: Path) -> list[str]:
    """Return which checkpoint of a finished run is the newest, which is the best, and which one commands take.

    Returns:
        [] for a run without checkpoints.
    """
    folder = checkpoints_folder(run)
    newest = newest_checkpoint(folder) if folder else None
    if folder is None or newest is None:
        return []
    facts, names = [f"{newest.name} is the newest"], []
    for by in CRITERIA:
        if (best := find_best(folder, by)) and best.path == newest:
            facts[0] += f" and the best ({by.words})"
        elif best:
            facts.append(f"{best.path.name} the best ({by.words}{_value(run, by, best)})")
            names.append(display_path(run / by.name))
    encoder, whole = find_weights(run).path.name, find_reported(run).path.name
    lines = [f"Checkpoints: {', '.join(facts)}"]
    if not names:
        return lines
    users = f"classify, probe and features take {encoder}, predict takes {whole}"
    if encoder == whole:
        users = f"classify, probe, features and predict take {encoder}"
    return [*lines, f"{users}; to choose, name {', '.join(reversed(names))} or a checkpoint folder"]
