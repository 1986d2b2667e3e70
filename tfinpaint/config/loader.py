"""Load a configuration file: YAML or JSON text -> `Config`, with errors that name file, line and key.

YAML nodes carry their line numbers, so that each problem that the schema finds is reported with its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from tfinpaint.config.diff import as_values, flat_values
from tfinpaint.config.explanations import Location, Sources, explain_missing, explain_problems, explain_yaml
from tfinpaint.config.paths import (
    INPUT_PATHS,
    OUTPUT_PATHS,
    absolute,
    absolute_outputs,
    make_inputs_absolute,
    move_outputs,
)
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.config.suggestions import dotted
from tfinpaint.config.values import merge, plain
from tfinpaint.layout import RESOLVED_CONFIG
from tfinpaint.system.paths import is_text

MAX_BYTES = 4 * 2**20  # a configuration that contains a whole ResNet50 has 0.3 MB
MAX_VALUES = 50_000  # mappings, lists, keys and values; each takes half a kilobyte while it is read
MAX_LEVELS = 64
MAX_CHARACTERS = 1024  # of an unquoted value: parsing a number of a million digits takes hours


def load_config(
    path: Path, overrides: Sequence[str] = (), workdir: Path | None = None, changes: Mapping[str, Any] | None = None
) -> Config:
    """Read a YAML or JSON configuration, apply `--set` overrides, validate, and make every path absolute.

    Input paths in the file are relative to the file; paths in `overrides` (texts "a.b=value"), in `changes` and
    `workdir` are relative to the current directory. The output paths `outfile`, `checkpoints.save` and
    `data.test_output_path` are relative to the run folder if it is named. If not, they are relative to the file, as in
    rmldnn, and the run folder `FILE_run` beside the file takes the other outputs, so that several files can share a
    folder.

    Args:
        changes: values that replace those of the file, as `merge` takes them.

    Raises:
        ConfigError: with one line (file, line, key, what was expected, what to do) for each problem found.
    """
    raw, lines = _read(path)
    if path.name == RESOLVED_CONFIG:  # of a run folder, for that run or for another one
        move_outputs(raw, workdir.resolve() if workdir else path.resolve().parent)
    folder = path.resolve().parent
    make_inputs_absolute(raw, folder)
    sources: dict[Location, str] = {}
    for override in overrides:
        _apply_override(raw, override, sources)
    if changes:
        raw = merge(raw, changes, sources)
    if workdir is not None:
        raw["workdir"] = str(workdir.resolve())
    base = None
    if raw.get("workdir") is None:
        base = folder
        raw["workdir"] = str(base / f"{path.stem}_run")
    return _validated(raw, Sources(path, lines, sources), base)


def load_values(given: Mapping[str, Any] | Config, changes: Mapping[str, Any], workdir: Path | None = None) -> Config:
    """Return the configuration that a Python program gives as values or as a `Config`; otherwise as `load_config` does.

    Relative input paths are relative to the current directory, and output paths to the run folder.

    Args:
        changes: values that replace those of `given`, as `merge` takes them.

    Raises:
        ConfigError: with one line for each problem found; no run folder is named.
    """
    raw = plain(given.model_dump(mode="json", exclude_unset=True) if isinstance(given, Config) else given)
    sources: dict[Location, str] = {}
    if workdir is not None:
        raw = {**move_outputs(raw, workdir.resolve()), "workdir": str(workdir.resolve())}
    make_inputs_absolute(raw, Path.cwd())
    raw = merge(raw, changes, sources)
    if raw.get("workdir") is None:
        raise ConfigError("workdir is missing: name the run folder, such as workdir='runs/mine'")
    return _validated(raw, Sources(Path("configuration"), {}, sources))


def _validated(raw: dict[str, Any], sources: Sources, base: Path | None = None) -> Config:
    """Return the configuration of these values, with its shorthands expanded and its output paths absolute.

    Args:
        raw: the values, of which `workdir` and the input paths are absolute.
        base: the folder that output paths are relative to; None: the run folder.

    Raises:
        ConfigError: as `load_config` does.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain_problems(error.errors(), raw, sources)) from None
    config = absolute_outputs(_expand_data(config), base)
    for name, value in flat_values(as_values(config)).items():  # they are written to checkpoints and TensorBoard
        if isinstance(value, str) and not value.isascii() and not is_text(value):
            raise ConfigError(
                f"{sources.path}: {name} {value!a}: expected a name in UTF-8; rename it, or name a link to it"
            )
    return config


def dump_config(config: Config) -> str:
    """Return the configuration as YAML with every default spelled out; `load_config` reads it back equal."""
    return yaml.safe_dump(as_values(config), sort_keys=False)


def read_values(path: Path) -> dict[str, Any]:
    """Return what `dump_config` wrote to a file, as plain values; {} if there is no such file or it is unreadable."""
    try:
        return _read(path)[0] if path.exists() else {}
    except ConfigError:
        return {}


# Text -> values.


class _Loader(yaml.SafeLoader):
    """A SafeLoader with limits, which reads 1e-3 as a number (YAML 1.1 requires 1.0e-3)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._levels = 0
        self._sizes: dict[str, int] = {}  # anchor -> number of values below it, which each alias repeats

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias and event.anchor not in self._sizes:
            raise _problem(event, f"the alias *{event.anchor} has no anchor before it")
        before = self._values
        self._values += self._sizes[event.anchor] if is_alias else 1
        self._levels += 1
        if self._values > MAX_VALUES:
            raise _problem(event, f"more than {MAX_VALUES} values, including those that aliases repeat")
        if self._levels > MAX_LEVELS:
            raise _problem(event, f"more than {MAX_LEVELS} levels")
        if isinstance(event, yaml.ScalarEvent) and not event.implicit[1] and len(event.value) > MAX_CHARACTERS:
            raise _problem(event, f"a value of {len(event.value)} characters; write it in quotes")
        node = super().compose_node(parent, index)
        self._levels -= 1
        if not is_alias and event.anchor:
            self._sizes[event.anchor] = self._values - before
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # of an impossible date, or of `!!bool perhaps`
            kind = node.tag.rpartition(":")[2]
            problem = f"{node.value!r} is no {kind}; if it is a text, write it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _problem(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=cast(yaml.Mark, event.start_mark))


def _read(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """Return the values of a file, and the line of each key and list item."""
    text = _read_text(path)
    lines: dict[Location, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node:
            _note_lines(node, (), lines, path, set())
        raw = loader.construct_document(node) if node else {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}{explain_yaml(error, text)}") from None
    if not isinstance(raw, dict):
        hint = "; a space is missing after a colon" if isinstance(raw, str) and ":" in raw else ""
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(raw).__name__}{hint}")
    if set(raw) == {"neural_network"} and isinstance(raw["neural_network"], dict):
        raw = _from_rmldnn(raw["neural_network"])
        lines = {location[1:]: line for location, line in lines.items() if location[1:]}
    if raw.get("debug") is False:  # rmldnn's default, which asks for nothing
        raw = {key: value for key, value in raw.items() if key not in ("debug", "debug_interval")}
    return raw, lines


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:  # which may be a pipe
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_BYTES >> 20} MiB, too large for a configuration")
        text = content.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ConfigError(f"{path}: {explain_missing(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a text file; expected a configuration in YAML or JSON") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    return text.replace("\t", " ") if path.suffix == ".json" else text  # JSON may be indented with tabs, YAML may not


def _from_rmldnn(section: dict[str, Any]) -> dict[str, Any]:
    """Return the section `neural_network` of an rmldnn file, with rmldnn's defaults and current key names."""
    data = section.get("data")
    if isinstance(data, dict) and "test_tag" in data and "testing_tag" not in data:
        data = {"testing_tag" if key == "test_tag" else key: value for key, value in data.items()}
        section = {**section, "data": data}
    return {"output_format": "rmldnn", "precision": "float32", **section}


def _note_lines(node: yaml.Node, location: Location, lines: dict[Location, int], path: Path, seen: set[int]) -> None:
    """Record the line of every key and list item, and refuse duplicate keys. Aliased nodes are visited once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or not key.value.isprintable():
                raise ConfigError(f"{path}:{line}: a key must be a printable text, not a list or a mapping")
            here = (*location, key.value)
            if here in lines:
                raise ConfigError(f"{path}:{line}: {dotted(here)} is given twice")
            lines[here] = line
            _note_lines(value, here, lines, path, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*location, index)] = value.start_mark.line + 1
            _note_lines(value, (*location, index), lines, path, seen)


# Overrides.


def _apply_override(raw: dict[str, Any], override: str, sources: dict[Location, str]) -> None:
    """Set the value of an override such as `data.transforms.0.resize=[64, 64]` in the raw configuration."""
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as --set optimizer.learning_rate=1e-4")
    parts = name.strip().split(".")
    location = tuple(int(part) if part.isascii() and part.isdecimal() else part for part in parts)
    value = _override_value(location, text, override)
    section: Any = raw
    reached: list[str | int] = []
    try:
        for part in location[:-1]:
            if isinstance(section, dict) and section.get(part) is None:
                section[part] = {}
            section = section[part]
            reached.append(part)
        section[location[-1]] = value
    except (TypeError, IndexError):
        items = f"; {dotted(reached)} has {len(section)} items, counted from 0" if isinstance(section, list) else ""
        raise ConfigError(f"--set {override}: there is no {name.strip()}{items}") from None
    sources[location] = f"--set {override}"


def _override_value(location: Location, text: str, override: str) -> Any:
    """Return the value of an override: YAML, or the text as it is for a path, which may contain YAML's signs."""
    if location in (*INPUT_PATHS, *OUTPUT_PATHS):
        if text in ("", "null"):
            return None
        return absolute(Path.cwd(), text, dotted(location)) if location in INPUT_PATHS else text
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None


def _expand_data(config: Config) -> Config:
    """Replace the shorthands `type` and `grayscale` with the keys that they stand for."""
    data, update = config.data, dict[str, Any]()
    if data.type is not None:
        update |= {"input_type": data.type, "target_type": data.type}
    if data.grayscale:
        update |= {"input_grayscale": True, "target_grayscale": True}
    return config.model_copy(update={"data": data.model_copy(update=update)})
