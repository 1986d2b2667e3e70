"""Say at the end of a run which checkpoints it has, and which of them later commands take."""

from __future__ import annotations

from pathlib import Path

from tfinpaint.checkpoint.find import (
    CRITERIA,
    checkpoints_folder,
    find_best,
    find_reported,
    find_weights,
    newest_checkpoint,
)
from tfinpaint.system.paths import display_path


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
            value = f", {best.shown}" if best.shown else ""
            facts.append(f"{best.path.name} the best ({by.words}{value})")
            names.append(display_path(run / by.name))
    encoder, whole = find_weights(run).path.name, find_reported(run).path.name
    lines = [f"Checkpoints: {', '.join(facts)}"]
    if not names:
        return lines
    users = f"classify, probe and features take {encoder}, predict takes {whole}"
    if encoder == whole:
        users = f"classify, probe, features and predict take {encoder}"
    return [*lines, f"{users}; to choose, name {', '.join(reversed(names))} or a checkpoint folder"]
