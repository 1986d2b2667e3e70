"""List every key of a configuration, with its values, its default and its description, from the schema."""

from __future__ import annotations

import ast
import fnmatch
import inspect
import itertools
import json
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tfinpaint.config.schema import Config


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        name: with its sections, such as `data.batch_size`; `[]` follows a list, as in `data.transforms[].resize`.
        values: the values that it takes, in words; names are in backticks.
        default: as JSON, or "required"; "" for a section, whose keys have their own.
        meaning: its description.
    """

    name: str
    values: str
    default: str
    meaning: str


def list_keys() -> list[Key]:
    """Return all keys in the order of the schema; a section appears once, a variant of it with its differences."""
    return list(_keys(Config, "", set()))


def matching_keys(pattern: str) -> list[Key]:
    """Return the keys whose names match a shell pattern, or contain it if it has no wildcards, in any case."""
    wanted = pattern.lower()
    if not set(wanted) & set("*?"):
        wanted = f"*{wanted}*"
    wanted = wanted.replace("[", "[[]")  # those of lists
    return [key for key in list_keys() if fnmatch.fnmatchcase(key.name.lower(), wanted)]


def _keys(section: type[BaseModel], prefix: str, told: set[type[BaseModel]]) -> Iterator[Key]:
    meanings = meanings_of(section)
    is_variant = section.__base__ in told
    for name, field in section.model_fields.items():
        if is_variant and name not in section.__annotations__:
            continue
        inner = models_in(field)
        if not inner or name in meanings:
            yield Key(f"{prefix}{name}", _values(field), _default(field), meanings.get(name, ""))
        for model in inner:
            item = "[]." if "list" in str(field.annotation) else "."
            if model not in told:
                yield from _keys(model, f"{prefix}{name}{item}", told)
            told.add(model)


def models_in(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the sections that the value of a key may be, or be a list of."""
    return [each for each in _flat(field.annotation) if isinstance(each, type) and issubclass(each, BaseModel)]


def meanings_of(section: type[BaseModel]) -> dict[str, str]:
    """Return the text below each key of a section and of those that it inherits from, in one line."""
    found: dict[str, str] = {}
    for origin in reversed([each for each in section.__mro__ if each.__module__.startswith("tfinpaint.")]):
        (body,) = ast.parse(inspect.getsource(origin)).body
        assert isinstance(body, ast.ClassDef)
        for key, text in itertools.pairwise(body.body):
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(key.target)] = " ".join(str(text.value.value).split())
    return found


def _flat(annotation: object) -> Sequence[object]:
    return [annotation, *(inner for argument in typing.get_args(annotation) for inner in _flat(argument))]


def _values(field: FieldInfo) -> str:
    choices = typing.get_args(field.annotation) if _is_union(field.annotation) else [field.annotation]
    return " or ".join(found for choice in choices if (found := _value(choice)))


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _value(annotation: object) -> str:
    """Return a kind of value in words; "" for null, which the description explains."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return _value(arguments[0])
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in arguments)
    if typing.get_origin(annotation) is list:
        inner = _value(arguments[0])
        return f"list of {inner}" if inner.startswith("`") else f"list of {inner}s"
    names = {int: "integer", float: "number", bool: "true, false", Path: "path", str: "text", type(None): ""}
    return names.get(annotation, "mapping") if isinstance(annotation, type) else "mapping"


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    return "" if isinstance(default, BaseModel) else json.dumps(default, default=str)
