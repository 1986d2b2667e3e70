"""Values of a configuration that a Python program gives, in place of a file or beside one."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any

from tfinpaint.config.explanations import Location
from tfinpaint.config.paths import make_inputs_absolute


def merge(raw: Mapping[str, Any], changes: Mapping[str, Any], sources: dict[Location, str]) -> dict[str, Any]:
    """Return the values with some of them replaced: sections are merged key by key, lists are replaced.

    Args:
        changes: top-level keys and their values; relative input paths in them are relative to the current directory.
        sources: gets location -> "keyword KEY" for each value of `changes`, for messages.
    """
    added = plain(changes)
    make_inputs_absolute(added, Path.cwd())
    return _merged(dict(raw), added, (), sources)


def _merged(
    into: dict[str, Any], added: Mapping[str, Any], above: Location, sources: dict[Location, str]
) -> dict[str, Any]:
    for key, value in added.items():
        here, before = (*above, key), into.get(key)
        if isinstance(value, dict) and value and isinstance(before, dict):
            into[key] = _merged(dict(before), value, here, sources)
        else:
            into[key] = value
            sources[here] = f"keyword {here[0]}"
    return into


def plain(value: Any) -> Any:
    """Return values of a Python program as a file has them: dictionaries, lists, texts and numbers."""
    match value:
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case PurePath():
            return str(value)
        case bool():
            return value
        case Integral():  # NumPy's too
            return int(value)
        case Real():
            return float(value)
    return value
