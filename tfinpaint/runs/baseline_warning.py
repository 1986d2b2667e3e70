"""Warn of an inpainter that restored the held-out images of its run less well than classical baselines."""

from __future__ import annotations

from pathlib import Path

from tfinpaint.checkpoint.find import run_folder_of
from tfinpaint.checkpoint.header import Header
from tfinpaint.checkpoint.reader import read_progress
from tfinpaint.inpainting.metrics import HEADLINE
from tfinpaint.layout import PROGRESS, SUMMARY
from tfinpaint.storage.safe_json import read_json


def below_baselines(checkpoint: Path, header: Header) -> str | None:
    """Return a sentence about the baselines that are better than a checkpoint, from the records of its run.

    Args:
        checkpoint: a checkpoint folder, or a weight file in one.

    Returns:
        None where no baseline is better, or where the records do not tell.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    run = run_folder_of(folder)
    if run is None or not (folder / PROGRESS).is_file():
        return None
    records = read_progress(folder).records
    ours = [r[HEADLINE] for r in records if r["phase"] == "test" and r["epoch"] == header.epoch and HEADLINE in r]
    better = {name: value for name, value in _baselines(run).items() if ours and value > float(ours[-1])}
    if not better:
        return None
    named = ", ".join(
        f"{name.replace('_', ' ')} {value:.1f}" for name, value in sorted(better.items(), key=lambda item: -item[1])
    )
    return (
        f"Expect little of this network: it restored the held-out images of its run less well (PSNR in the hole "
        f"{float(ours[-1]):.1f} dB) than baselines that need no training ({named} dB); train it longer"
    )


def _baselines(run: Path) -> dict[str, float]:
    """Return baseline -> its PSNR in the hole in dB, from the summary of a run; {} where there is none."""
    summary = read_json(run / SUMMARY)
    measured = summary.get("measurements") if isinstance(summary, dict) else None
    scores = measured if isinstance(measured, dict) else {}
    found = {name: values.get(HEADLINE) for name, values in scores.items() if isinstance(values, dict)}
    return {name: value for name, value in found.items() if name != "network" and isinstance(value, float)}
