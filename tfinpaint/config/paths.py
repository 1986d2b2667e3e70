"""The paths in a configuration: which keys are paths, and what relative ones are relative to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfinpaint.config.explanations import Location
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.config.suggestions import dotted

# Keys that are paths. Relative ones are relative to the file (inputs), or to the run folder (outputs).
INPUT_PATHS: list[Location] = [
    ("workdir",),
    ("layers",),
    ("checkpoints", "load"),
    ("data", "input_path"),
    ("data", "target_path"),
    ("data", "test_input_path"),
    ("data", "test_target_path"),
    ("loss", "perceptual", "encoder"),
    ("probe", "path"),
]
OUTPUT_PATHS: list[Location] = [("outfile",), ("checkpoints", "save"), ("data", "test_output_path")]


def make_inputs_absolute(raw: dict[str, Any], folder: Path) -> None:
    """Make the input paths of the values absolute; relative ones are relative to a folder."""
    for *sections, key in INPUT_PATHS:
        section = _descend(raw, sections)
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = absolute(folder, section[key], dotted([*sections, key]))


def move_outputs(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Change the output paths inside a run folder to where the folder is now, because it may have been moved or copied.

    Args:
        raw: the configuration of the run; it is changed.
        folder: the run folder, absolute.

    Returns:
        The same configuration.
    """
    before = raw.get("workdir")
    if not isinstance(before, str):
        return raw
    for *sections, key in OUTPUT_PATHS:
        section = _descend(raw, sections)
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(value, str) and Path(value).is_relative_to(before):
            section[key] = str(folder / Path(value).relative_to(before))
    raw["workdir"] = str(folder)
    return raw


def absolute(base: Path, text: str, name: str) -> str:
    """Return the absolute path of a text that is relative to `base`, or begins with ~.

    Raises:
        ConfigError: it is no path; the message begins with `name`, the key.
    """
    try:
        if text:
            return str((base / Path(text).expanduser()).resolve())
    except (RuntimeError, ValueError):  # an unknown user after ~, a null character
        pass
    raise ConfigError(f"{name}: {text!r} is not a usable path")


def _descend(raw: Any, sections: Sequence[str | int]) -> Any:
    for part in sections:
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def absolute_outputs(config: Config, base: Path | None) -> Config:
    """Return the configuration with absolute output paths: below `base`, or below the run folder if it is None.

    `checkpoints.save` lies in the run folder unless it is given.
    """
    workdir = config.workdir
    assert workdir is not None
    base = (base or workdir).resolve()
    given, save = "save" in config.checkpoints.model_fields_set, config.checkpoints.save
    checkpoints = config.checkpoints.model_copy(update={"save": _below(base if given else workdir, save)})
    data = config.data.model_copy(update={"test_output_path": _below(base, config.data.test_output_path)})
    outfile = _below(base, config.outfile)
    return config.model_copy(update={"checkpoints": checkpoints, "data": data, "outfile": outfile})


def _below(base: Path, path: Path | None) -> Path | None:
    return (base / path).resolve() if path else None
