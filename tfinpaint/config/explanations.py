"""Problems of a configuration file in words: where the user wrote it, what was expected, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tfinpaint.config import hints, rmldnn
from tfinpaint.config.hints import dotted

Location = tuple[str | int, ...]

SUFFIXES = (".yaml", ".yml", ".json")
_MOST_NAMED = 8
# What a list of numbers looks like, by the last name of its key.
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
        lines: of each key and list item in it.
        overrides: location -> the `--set` that it came from.
    """

    path: Path
    lines: Mapping[Location, int]
    overrides: Mapping[Location, str]

    def of(self, location: Location) -> str:
        """Return the override, or the file with the nearest line, where a location was written."""
        above = [source for key, source in self.overrides.items() if location[: len(key)] == key]
        below = [source for key, source in self.overrides.items() if key[: len(location)] == location]
        if above or (below and location and location not in self.lines):
            return (above or below)[0]
        length = next((n for n in range(len(location), 0, -1) if location[:n] in self.lines), 0)
        return f"{self.path}:{self.lines[location[:length]]}" if length else str(self.path)


def explain_problems(problems: Sequence[Mapping[str, Any]], raw: Mapping[str, Any], sources: Sources) -> str:
    """Return a line of text for each problem that the schema has found.

    Args:
        problems: of a pydantic `ValidationError`.
        raw: what was validated.
    """
    # Where the kind of data is not known here, the keys that belong to it are not either.
    if foreign := [problem for problem in problems if _foreign_value(problem, _written(raw, problem["loc"]))]:
        return _explain(foreign[0], raw, sources)
    # In `{type:Cosine}` one key is unknown, and one is missing: the same.
    unknown = [problem["loc"] for problem in problems if problem["type"] == "extra_forbidden"]
    squeezed = {(*loc[:-1], str(loc[-1]).partition(":")[0]) for loc in unknown if ":" in str(loc[-1])}
    told = [problem for problem in problems if problem["type"] != "missing" or problem["loc"] not in squeezed]
    return "\n".join(dict.fromkeys(_explain(problem, raw, sources) for problem in told))


def _explain(problem: Mapping[str, Any], raw: Mapping[str, Any], sources: Sources) -> str:
    missing = problem["loc"][-1:] if problem["type"] == "missing" else ()
    location = _written(raw, problem["loc"])
    source = sources.of(location)
    location = (*location, *missing)
    name = dotted(location) or "the configuration"
    if problem["type"] == "extra_forbidden":
        if location[-1] in rmldnn.KEYS:
            return f"{source}: {name} is a key of the seed tool that is not supported: {rmldnn.KEYS[location[-1]]}"
        return f"{source}: unknown key {name}{hints.explain(location, problem['input'])}"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict | BaseModel) else f" (given: {problem['input']!r})"
    message = re.sub(r"a valid dictionary or instance of \w+", "a mapping of keys to values", message)
    if message.startswith(("Input should", "List should")):  # pydantic's own words; ours begin as they should
        message = message[0].lower() + message[1:]
    if what := _foreign_value(problem, location):
        message = f"{what}; {message}"
    quoted = "; write it without quotes" if _is_quoted(problem) else ""
    return f"{source}: {name}: {message}{_example(problem, location)}{given}{quoted}"


def _foreign_value(problem: Mapping[str, Any], location: Location) -> str | None:
    """What a value is that rmldnn knows and this project does not, and why it does not; None for any other value."""
    return rmldnn.VALUES.get((dotted(location), str(problem["input"]).lower()))


def _written(raw: Any, location: Sequence[str | int]) -> Location:
    """The part of a location that was written: pydantic's also names the kinds of values that it has tried."""
    found: list[str | int] = []
    for part in location:
        of_list = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if of_list or (isinstance(raw, Mapping) and part in raw):
            raw = raw[part]
            found.append(part)
    return tuple(found)


def _example(problem: Mapping[str, Any], location: Location) -> str:
    """What a right value looks like, where a list was expected."""
    key, value = next((part for part in reversed(location) if isinstance(part, str)), ""), problem["input"]
    if problem["type"] in ("list_type", "too_short", "too_long") and key in _LISTS:
        if key in ("resize", "center_crop") and type(value) is int:
            return f", such as [{value}, {value}]"
        return f", such as {_LISTS[key]}"
    return ""


def _is_quoted(problem: Mapping[str, Any]) -> bool:
    """True for a number, or true or false, in quotes."""
    value = problem["input"]
    if problem["type"] not in ("int_type", "float_type", "bool_type") or not isinstance(value, str):
        return False
    return re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false", value.lower()) is not None


def explain_yaml(error: Exception, text: str) -> str:
    """Return `:LINE: what is wrong` of a text that is not YAML."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split()) or "not readable"
    if mark is None:
        return f": not valid YAML: {problem}"
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1)
    line, before = lines[number] if lines else "", next((each for each in lines[:number][::-1] if each.strip()), "")
    structural = "block end" in problem or "mapping values" in problem or "could not find expected ':'" in problem
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        problem = "it is indented with a tab; use blanks"
    elif structural and (squeezed := next((each for each in (line, before) if _lacks_blank(each)), None)):
        key, _, value = squeezed.strip().removeprefix("- ").partition(":")
        problem = f"a blank is missing after a colon: write `{key}: {value}`"
    elif structural and line.strip() and _indent(line) != _indent(before):
        problem = f"it is indented differently from the lines around it ({problem})"
    return f":{number + 1}: not valid YAML: {problem}"


def _lacks_blank(line: str) -> bool:
    return re.fullmatch(r"\s*(- )?[A-Za-z_]\w*:[^\s/:].*", line) is not None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def explain_missing(path: Path) -> str:
    """Return why a path is no configuration file: it is a folder, or is not there; and which files may be meant."""
    folder = path if path.is_dir() else path.parent
    what = "is a folder; name a file in it" if path.is_dir() else "no such configuration file"
    if not folder.is_dir():
        return f"{what}; there is no folder {folder}"
    try:
        there = sorted(each.name for each in folder.iterdir() if each.suffix in SUFFIXES and each.is_file())
    except OSError:
        there = []
    near = [] if path.is_dir() else difflib.get_close_matches(path.name, there, n=1, cutoff=0.6)
    if near or len(there) == 1:
        return f"{what}; did you mean {_beside(folder, (near or there)[0])}?"
    if not there:
        return f"{what}; there is no YAML or JSON file in {_beside(folder, '')}"
    more = f" and {len(there) - _MOST_NAMED} more" if len(there) > _MOST_NAMED else ""
    return f"{what}; there are {', '.join(there[:_MOST_NAMED])}{more}"


def _beside(folder: Path, name: str) -> str:
    """A path as one types it."""
    path = folder / name
    return str(path) if path.is_absolute() or str(path).startswith("..") else f"./{path}"
