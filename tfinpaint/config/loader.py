"""Reading a configuration file: YAML or JSON text -> `Config`, with errors that name file, line and key.

YAML nodes keep their line numbers, so every problem that the schema finds can be told with its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from tfinpaint.config.explanations import Location, Sources, explain_missing, explain_problems, explain_yaml
from tfinpaint.config.hints import dotted
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.layout import RESOLVED_CONFIG
from tfinpaint.system.paths import is_text

MAX_BYTES = 4 * 2**20  # a configuration with a ResNet50 written out in it takes 0.3 MB
MOST_VALUES = 50_000  # mappings, lists, keys and values; each takes half a kilobyte while it is read
MOST_LEVELS = 64
MOST_CHARACTERS = 1024  # of a value without quotes: a number of a million digits takes hours


class _Loader(yaml.SafeLoader):
    """SafeLoader with limits, which reads 1e-3 as the number it is (YAML 1.1 wants 1.0e-3)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._levels = 0
        self._sizes: dict[str, int] = {}  # anchor -> values below it; an alias stands for them all

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias and event.anchor not in self._sizes:
            raise _problem(event, f"*{event.anchor} stands for nothing that was written before")
        before = self._values
        self._values += self._sizes[event.anchor] if is_alias else 1
        self._levels += 1
        if self._values > MOST_VALUES:
            raise _problem(event, f"more than {MOST_VALUES} values, those that aliases repeat among them")
        if self._levels > MOST_LEVELS:
            raise _problem(event, f"more than {MOST_LEVELS} levels")
        if isinstance(event, yaml.ScalarEvent) and not event.implicit[1] and len(event.value) > MOST_CHARACTERS:
            raise _problem(event, f"a value of {len(event.value)} characters; write it in quotes")
        node = super().compose_node(parent, index)
        self._levels -= 1
        if not is_alias and event.anchor:
            self._sizes[event.anchor] = self._values - before
        return node


def _problem(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=cast(yaml.Mark, event.start_mark))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_config(path: Path, overrides: Sequence[str] = (), workdir: Path | None = None) -> Config:
    """Read a YAML or JSON configuration, apply `--set` overrides, validate, and make every path absolute.

    Paths written in the file are relative to the file; paths in `overrides` (strings "a.b=value") and `workdir` are
    relative to the current directory. `outfile`, `checkpoints.save` and `data.test_output_path` are relative to the
    run folder where one is named. Where none is, they are relative to the file, as the seed tool has it, and what is
    this project's own goes into a run folder beside the file, so that several files can share a folder.

    Raises:
        ConfigError: one line (file, line, key, what was expected, what to do) for each problem found.
    """
    raw, lines = _read(path)
    if path.name == RESOLVED_CONFIG:  # of a run folder, for that run or for another one
        move_outputs(raw, workdir.resolve() if workdir else path.resolve().parent)
    raw = _resolve_paths(raw, path.resolve().parent)
    sources: dict[Location, str] = {}
    for override in overrides:
        _apply_override(raw, override, sources)
    if workdir is not None:
        raw["workdir"] = str(workdir.resolve())
    base = None
    if raw.get("workdir") is None:
        base = path.resolve().parent
        raw["workdir"] = str(base / f"{path.stem}_run")
    try:
        config = Config.model_validate(_strings_to_paths(raw))
    except ValidationError as error:
        raise ConfigError(explain_problems(error.errors(), raw, Sources(path, lines, sources))) from None
    config = _absolute_outputs(_expand_data(config), base)
    _check_text(config, path)
    return config


def _check_text(config: Config, path: Path) -> None:
    """Checkpoints, TensorBoard's files and the resolved configuration hold its values: they must be text."""
    for name, value in _flat(as_values(config)).items():
        if isinstance(value, str) and not value.isascii() and not is_text(value):
            raise ConfigError(f"{path}: {name} {value!a}: expected a name in UTF-8; rename it, or name a link to it")


def dump_config(config: Config) -> str:
    """The configuration as YAML with every default spelled out; `load_config` reads it back equal."""
    return yaml.safe_dump(as_values(config), sort_keys=False)


def as_values(config: Config) -> dict[str, Any]:
    """The configuration as JSON has it, with every default spelled out."""
    return config.model_dump(mode="json", exclude_unset=False)


# What a resumed run may change without being asked: where and when it writes, and what gives the same numbers.
_FREE = (
    "workdir",
    "outfile",
    "output_format",
    "figures_interval",
    "checkpoints.save",
    "checkpoints.interval",
    "checkpoints.interval_steps",
    "checkpoints.interval_minutes",
    "checkpoints.keep",
    "data.preload",
    "data.max_bad_images",
    "data.test_output_path",
    "distributed.fusion_threshold_mb",
    "distributed.cycle_time_ms",
    "distributed.cache_capacity",
    "distributed.autotune",
    "distributed.timeline",
    "distributed.heartbeat_timeout_s",
    "distributed.stall_timeout_s",
)


def differences(before: Mapping[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value there, value here) of what makes another run of it.

    Args:
        before: the configuration of the run so far, as `as_values` gave it.
    """
    free = {*_FREE, *(() if _has_cosine(config) else ("num_epochs",))}
    then, now = _flat(before), _flat(as_values(config))
    keys = [key for key in {**now, **then} if key not in free]
    return {key: (then.get(key), now.get(key)) for key in keys if then.get(key) != now.get(key)}


def read_values(path: Path) -> dict[str, Any]:
    """What `dump_config` wrote into a file, as `as_values` gave it; {} where there is none, or it cannot be read."""
    try:
        return _read(path)[0] if path.exists() else {}
    except ConfigError:
        return {}


def has_key(values: Mapping[str, Any], name: str) -> bool:
    """True where a configuration has a key, or a section, of this dotted name."""
    return any(key == name or key.startswith(f"{name}.") for key in _flat(values))


def _has_cosine(config: Config) -> bool:
    """True where a learning rate depends on the length of the run."""
    optimizers = [config.optimizer, *([config.loss.adversarial.optimizer] if config.loss.adversarial else [])]
    return any(each.lr_scheduler is not None and each.lr_scheduler.type == "Cosine" for each in optimizers)


def _flat(section: Any, name: str = "") -> dict[str, Any]:
    """Dotted key -> value; a list is one value."""
    if not isinstance(section, dict):
        return {name: section}
    parts = [_flat(value, f"{name}.{key}" if name else str(key)) for key, value in section.items()]
    return {key: value for part in parts for key, value in part.items()}


def _read(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    try:
        with path.open("rb") as file:  # which may be a pipe
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_BYTES >> 20} MiB, which no configuration is")
        text = content.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ConfigError(f"{path}: {explain_missing(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML may not
    lines: dict[Location, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node:
            _note_lines(node, (), lines, path, set())
        raw = loader.construct_document(node) if node else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date or number
        raise ConfigError(f"{path}{explain_yaml(error, text)}") from None
    if not isinstance(raw, dict):
        hint = "; a blank is missing after a colon" if isinstance(raw, str) and ":" in raw else ""
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(raw).__name__}{hint}")
    if set(raw) == {"neural_network"} and isinstance(raw["neural_network"], dict):
        raw = _from_rmldnn(raw["neural_network"])
        lines = {loc[1:]: line for loc, line in lines.items() if loc[1:]}
    if raw.get("debug") is False:  # rmldnn's default: nothing is asked for
        raw = {key: value for key, value in raw.items() if key not in ("debug", "debug_interval")}
    return raw, lines


def _from_rmldnn(section: dict[str, Any]) -> dict[str, Any]:
    """Return the section `neural_network` of an rmldnn file, with its format of outputs and today's names of keys."""
    data = section.get("data")
    if isinstance(data, dict) and "test_tag" in data and "testing_tag" not in data:
        data = {"testing_tag" if key == "test_tag" else key: value for key, value in data.items()}
        section = {**section, "data": data}
    return {"output_format": "rmldnn", **section}


def _note_lines(node: yaml.Node, location: Location, lines: dict[Location, int], path: Path, seen: set[int]) -> None:
    """Record the line of every key and list item, and refuse a key given twice. Aliased nodes are walked once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value.isprintable():
                raise ConfigError(f"{path}:{key.start_mark.line + 1}: a key is a list, a mapping or no text")
            here = (*location, key.value)
            if here in lines:
                raise ConfigError(f"{path}:{key.start_mark.line + 1}: {dotted(here)} is given twice")
            lines[here] = key.start_mark.line + 1
            _note_lines(value, here, lines, path, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*location, index)] = value.start_mark.line + 1
            _note_lines(value, (*location, index), lines, path, seen)


# Which keys are paths, and what a relative one is relative to.
_INPUT_PATHS: list[Location] = [
    ("workdir",),
    ("layers",),
    ("checkpoints", "load"),
    ("data", "input_path"),
    ("data", "target_path"),
    ("data", "test_input_path"),
    ("data", "test_target_path"),
    ("loss", "perceptual", "encoder"),
]
_OUTPUT_PATHS: list[Location] = [("outfile",), ("checkpoints", "save"), ("data", "test_output_path")]
_PATHS: list[Location] = [*_INPUT_PATHS, *_OUTPUT_PATHS]


def move_outputs(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Let what a run wrote below its folder be where the folder is now: it may have been moved, or copied.

    Args:
        raw: the configuration of the run; it is changed.
        folder: the run folder, absolute.

    Returns:
        The same configuration.
    """
    before = raw.get("workdir")
    if not isinstance(before, str):
        return raw
    for *sections, key in _OUTPUT_PATHS:
        section = _descend(raw, sections)
        if (
            isinstance(section, dict)
            and isinstance(section.get(key), str)
            and Path(section[key]).is_relative_to(before)
        ):
            section[key] = str(folder / Path(section[key]).relative_to(before))
    raw["workdir"] = str(folder)
    return raw


def _resolve_paths(raw: dict[str, Any], base: Path) -> dict[str, Any]:
    for *sections, key in _INPUT_PATHS:
        section = _descend(raw, sections)
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = _absolute(base, section[key], dotted([*sections, key]))
    return raw


def _absolute(base: Path, text: str, name: str) -> str:
    try:
        if text:
            return str((base / Path(text).expanduser()).resolve())
    except (RuntimeError, ValueError):  # an unknown user after ~, a null character
        pass
    raise ConfigError(f"{name}: {text!r} is not a usable path")


def _apply_override(raw: dict[str, Any], override: str, sources: dict[Location, str]) -> None:
    """`data.transforms.0.resize=[64, 64]` -> the value, read as YAML, at that place."""
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as --set optimizer.learning_rate=1e-4")
    location: Location = tuple(
        int(part) if part.isascii() and part.isdecimal() else part for part in name.strip().split(".")
    )
    value = _override_value(location, text, override)
    section: Any = raw
    for part in location[:-1]:
        if isinstance(section, dict):
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
        elif isinstance(section, list) and isinstance(part, int) and part < len(section):
            section = section[part]
        else:
            raise ConfigError(f"--set {override}: there is no {dotted(location[:-1])}")
    try:
        section[location[-1]] = value
    except (TypeError, IndexError):
        raise ConfigError(f"--set {override}: there is no {name.strip()}") from None
    sources[location] = f"--set {override}"


def _override_value(location: Location, text: str, override: str) -> Any:
    if location in _PATHS:  # taken literally: a path may hold what means something else in YAML
        if text in ("", "null"):
            return None
        return _absolute(Path.cwd(), text, dotted(location)) if location in _INPUT_PATHS else text
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None


def _strings_to_paths(raw: dict[str, Any]) -> dict[str, Any]:
    """Strict validation takes no string for a Path: turn the strings at the known places into paths."""
    for *sections, key in _PATHS:
        section = _descend(raw, sections)
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = Path(section[key])
    return raw


def _descend(raw: Any, sections: Sequence[str | int]) -> Any:
    for part in sections:
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def _expand_data(config: Config) -> Config:
    """`type` and `grayscale` into the keys that they stand for."""
    data, update = config.data, dict[str, Any]()
    if data.type is not None:
        update |= {"input_type": data.type, "target_type": data.type}
    if data.grayscale:
        update |= {"input_grayscale": True, "target_grayscale": True}
    return config.model_copy(update={"data": data.model_copy(update=update)})


def _absolute_outputs(config: Config, base: Path | None) -> Config:
    """Place what a run writes: below `base`, or the run folder where it is None or the key was left out."""
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
