"""Write the page of a run: its result first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfinpaint.config.schema import Config
from tfinpaint.layout import ENVIRONMENT, REPORT, RESOLVED_CONFIG
from tfinpaint.report.about import about
from tfinpaint.report.cells import Code, link_to
from tfinpaint.report.html import Section, write_page
from tfinpaint.report.quantities import legend, summary_table
from tfinpaint.storage.safe_json import read_json
from tfinpaint.system.paths import display_path


def write_run_page(
    folder: Path,
    title: str,
    config: Config,
    summary: Mapping[str, Any],
    sections: Sequence[Section],
    source: Path | None = None,
) -> None:
    """Write the page into the folder of the run.

    Args:
        summary: of the run, as in summary.json.
        sections: about the result.
        source: folder of the run that the weights came from; None for other weights or random ones.
    """
    table = summary_table(summary)
    figures = Section("All figures of the run", table=table, note=legend(table))
    facts = about(_facts(folder, config, source), finished=summary["finished"], command=summary["command"])
    configuration = Section("Configuration", text=(folder / RESOLVED_CONFIG).read_text("utf-8"))
    write_page(folder / REPORT, f"{title}: {folder.name}", [*sections, figures, facts, configuration])


def _facts(folder: Path, config: Config, source: Path | None) -> dict[str, Any]:
    """Return rows about data and weights, name -> cell; None for what the run does not have."""
    data, load = config.data, config.checkpoints.load
    weights = None
    if load is not None:
        weights = link_to(source / REPORT, folder, display_path(load)) if source else display_path(load)
    paths = {
        "run folder": folder,
        "training images": data.input_path,
        "training targets": data.target_path,
        "test images": data.test_input_path,
        "test targets": data.test_target_path,
    }
    output = data.test_output_path
    return {
        **{name: Code(display_path(path)) if path else None for name, path in paths.items()},
        "versions": _versions(folder),
        "predictions": link_to(output, folder, display_path(output)) if output else None,
        "weights from": weights,
    }


def _versions(folder: Path) -> str | None:
    """Return versions and seed as the run has written them, such as "tfinpaint 0.2.0, Keras 3.15.1, seed 0"."""
    found = read_json(folder / ENVIRONMENT)
    if not isinstance(found, dict):
        return None
    commit, dash, changed = str(found.get("revision") or "").partition("-")
    found["revision"] = f"{commit[:12]}{dash}{changed}" or None
    names = ("tfinpaint", "revision", "Python", "TensorFlow", "Keras", "Horovod", "seed")
    return ", ".join(f"{name} {found[name]}" for name in names if found.get(name) is not None)
