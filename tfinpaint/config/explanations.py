"""Explain why a configuration is refused: misspelt keys, wrong values, text that is not YAML, missing files.

Each message says where the user wrote it, what is wrong, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tfinpaint.config import rmldnn
from tfinpaint.config.suggestions import dotted, keys_at, suggest_key
from tfinpaint.config.transforms import Transform
from tfinpaint.layout import NO_CONFIGS
from tfinpaint.system.paths import display_path
from tfinpaint.system.startup import ROOT
from tfinpaint.system.wording import counted

Location = tuple[str | int, ...]

SUFFIXES = (".yaml", ".yml", ".json")
_MAX_FILES = 8  # names of other files in a message
_LEAST_PART = 3  # characters of a name by which it is recognised
_MAX_KEYS = 12  # names of keys in a message
# Example of the list that a key expects.
_LISTS = {
    "resize": "[128, 128] (width, height)",
    "center_crop": "[128, 128] (width, height)",
    "side": "[0.1, 0.3]",
    "area": "[0.2, 0.3]",
    "milestones": "[30, 60]",
    "weight": "[1.0, 2.5], one for each class",
    "transforms": "- resize: [128, 128]",
    "input_transforms": "- normalize: {mean: 0.5, std: 0.5}",
    "target_transforms": "- resize: [128, 128]",
}


@dataclass(frozen=True)
class Sources:
    """Where the values of a configuration were written.

    Attributes:
        path: the file.
        lines: line number of each key and list item in it.
        overrides: location -> the `--set` option that gave its value.
    """

    path: Path
    lines: Mapping[Location, int]
    overrides: Mapping[Location, str]

    def find(self, location: Location) -> str:
        """Return the `--set` option, or the file and the nearest line, where a location was written."""
        above = [source for key, source in self.overrides.items() if location[: len(key)] == key]
        below = [source for key, source in self.overrides.items() if key[: len(location)] == location]
        if above or (below and location and location not in self.lines):
            return (above or below)[0]
        length = next((n for n in range(len(location), 0, -1) if location[:n] in self.lines), 0)
        return f"{self.path}:{self.lines[location[:length]]}" if length else str(self.path)


def explain_problems(problems: Sequence[Mapping[str, Any]], raw: Mapping[str, Any], sources: Sources) -> str:
    """Return one line for each problem that the schema has found.

    Args:
        problems: the errors of a pydantic `ValidationError`.
        raw: the values that were validated.
        sources: where they were written.
    """
    # If the kind of data is not supported, the keys that belong to it are not the problem.
    if foreign := [problem for problem in problems if _unsupported_value(problem, _written(raw, problem["loc"]))]:
        return _explain(foreign[0], raw, sources)
    # `{type:Cosine}` is one mistake, but two problems: an unknown key `type:Cosine`, and a missing key `type`.
    unknown = [problem["loc"] for problem in problems if problem["type"] == "extra_forbidden"]
    squeezed = {(*loc[:-1], str(loc[-1]).partition(":")[0]) for loc in unknown if ":" in str(loc[-1])}
    shown = [problem for problem in problems if problem["type"] != "missing" or problem["loc"] not in squeezed]
    shown.sort(key=lambda problem: problem["type"] == "missing")  # a misspelt key is missing, too
    return "\n".join(dict.fromkeys(_explain(problem, raw, sources) for problem in shown))


def _explain(problem: Mapping[str, Any], raw: Mapping[str, Any], sources: Sources) -> str:
    given = problem["input"]
    location = _written(raw, problem["loc"])
    source = sources.find(location)
    location = (*location, *(problem["loc"][-1:] if problem["type"] == "missing" else ()))
    name = dotted(location) or "the configuration"
    if problem["type"] == "extra_forbidden":
        if location[-1] in rmldnn.KEYS:
            return f"{source}: {name} is a key of rmldnn that is not supported: {rmldnn.KEYS[location[-1]]}"
        return f"{source}: unknown key {name}{suggest_key(location, given)}"
    if problem["type"] == "missing":
        return f"{source}: {name} is missing, and has no default"
    message = problem["msg"].removeprefix("Value error, ")
    message = re.sub(r"a valid dictionary or instance of \w+", "a mapping of keys to values", message)
    if message.startswith(("Input should", "List should")):  # pydantic's sentences follow the key
        message = message[0].lower() + message[1:]
    if unsupported := _unsupported_value(problem, location):
        message = f"{unsupported}; {message}"
    key = next((part for part in reversed(location) if isinstance(part, str)), "")
    if problem["type"] in ("too_short", "too_long"):
        message = _wrong_length(problem["ctx"])
    if problem["type"] in ("list_type", "too_short", "too_long") and key in _LISTS:
        message += f", such as {_LISTS[key]}"
    if not isinstance(given, dict | BaseModel):
        message += f" (given: {given!r})"
    message += _hint(problem, location)
    is_number = problem["type"] in ("int_type", "float_type", "bool_type") and isinstance(given, str)
    if is_number and re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false", given.lower()):
        message += "; write it without quotes"
    return f"{source}: {name}: {message}"


def _wrong_length(limits: Mapping[str, Any]) -> str:
    """Return which length a list must have, and which it has."""
    limit, count = ("at least", limits["min_length"]) if "min_length" in limits else ("at most", limits["max_length"])
    return f"expected {limit} {counted(count, 'item')}, found {limits['actual_length']}"


def _hint(problem: Mapping[str, Any], location: Location) -> str:
    """Return what was probably meant by a value of a wrong kind, or by a misspelt name; "" if that is unknown."""
    given, kind = problem["input"], problem["type"]
    if kind in ("model_type", "model_attributes_type", "dict_type") and location and (keys := keys_at(location)):
        if isinstance(location[-1], int):  # a step of a list of transforms
            is_step = isinstance(given, str) and given in Transform.model_fields and given not in _LISTS
            return f"; write `- {given}: {{}}`" if is_step else "; a step is such as `- resize: [128, 128]`"
        if "type" in keys and isinstance(given, str):
            return f"; write `{location[-1]}: {{type: {given}}}`"
        listed = f"its keys are {', '.join(keys)}"
        return (
            f"; {listed if len(keys) <= _MAX_KEYS else f'`tfinpaint config keys {dotted(location)}.` lists its keys'}"
        )
    if kind == "literal_error" and isinstance(given, str):
        names = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
        lower = {name.lower(): name for name in names}
        parts = [name for name in lower if given.lower() in name] if len(given) >= _LEAST_PART else []
        near = parts or difflib.get_close_matches(given.lower(), lower, n=1)
        return f"; did you mean {' or '.join(lower[name] for name in near)}?" if near else ""
    return ""


def _unsupported_value(problem: Mapping[str, Any], location: Location) -> str | None:
    """Return what a value is that rmldnn supports and this project does not, and why; None for any other value."""
    return rmldnn.VALUES.get((dotted(location), str(problem["input"]).lower()))


def _written(raw: Any, location: Sequence[str | int]) -> Location:
    """Return the part of a location that was written: pydantic adds the types that it has tried."""
    found: list[str | int] = []
    for part in location:
        of_list = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if of_list or (isinstance(raw, Mapping) and part in raw):
            raw = raw[part]
            found.append(part)
    return tuple(found)


def explain_yaml(error: Exception, text: str) -> str:
    """Return `:LINE: what is wrong` for a text that is not YAML."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split()) or "not readable"
    if mark is None:
        return f": not valid YAML: {problem}"
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1)
    line, before = lines[number] if lines else "", next((each for each in lines[:number][::-1] if each.strip()), "")
    structural = "block end" in problem or "mapping values" in problem or "could not find expected ':'" in problem
    squeezed = [each for each in (line, before) if re.fullmatch(r"\s*(- )?[A-Za-z_]\w*:[^\s/:].*", each)]
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        problem = "it is indented with a tab; use spaces"
    elif structural and squeezed:
        key, _, value = squeezed[0].strip().removeprefix("- ").partition(":")
        problem = f"a space is missing after a colon: write `{key}: {value}`"
    elif structural and line.strip() and _indent(line) != _indent(before):
        problem = f"it is indented differently from the lines around it ({problem})"
    return f":{number + 1}: not valid YAML: {problem}"


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def explain_missing(path: Path) -> str:
    """Return why a path is not a configuration file, and which files may have been meant."""
    folder = path if path.is_dir() else path.parent
    what = "is a folder; name a file in it" if path.is_dir() else "no such configuration file"
    if not folder.is_dir():
        return f"{what}; there is no folder {folder}{_in_project(path)}"
    try:
        files = sorted(each.name for each in folder.iterdir() if each.suffix in SUFFIXES and each.is_file())
    except OSError:
        files = []
    there = [name for name in files if name not in NO_CONFIGS]
    if not there:
        return f"{what}; there is no YAML or JSON file in {_typed(folder)}{_in_project(path)}"
    if (near := "" if path.is_dir() else _nearest(path, there)) or len(there) == 1:
        return f"{what}; did you mean {_typed(folder / (near or there[0]))}?"
    more = f" and {len(there) - _MAX_FILES} more" if len(there) > _MAX_FILES else ""
    return f"{what}; there are {', '.join(there[:_MAX_FILES])}{more}"


def _nearest(path: Path, names: Sequence[str]) -> str:
    """Return the name that is most like that of a file, whatever its suffix; "" if none is like it."""
    stems = {Path(name).stem: name for name in names}
    near = difflib.get_close_matches(path.stem, stems, n=1)
    return stems[near[0]] if near else ""


def _in_project(path: Path) -> str:
    """Return where a relative path is that somebody has typed in another folder than that of the project."""
    known = ROOT / path
    return f"; did you mean {display_path(known)}?" if not path.is_absolute() and known.is_file() else ""


def _typed(path: Path) -> str:
    """Return a path as one types it."""
    return str(path) if path.is_absolute() or str(path).startswith("..") else f"./{path}"
