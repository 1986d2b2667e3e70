"""Describe the configuration as a JSON Schema, by which an editor completes keys and marks what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from tfinpaint.config.keys import meanings_of, models_in
from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import Transform

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration, with a description of every key.

    It has what a single key says: its name, type, limits, values and default. What follows from several keys together,
    such as an optimizer that has no momentum, is for `tfinpaint config check`. Names are those of the reference, while
    a run reads them in any case.
    """
    schema = Config.model_json_schema(mode="validation")
    for model in _models(Config):
        section = schema if model is Config else schema["$defs"][model.__name__]
        meanings = meanings_of(model)
        for name, field in model.model_fields.items():
            key = section["properties"][name]
            key["description"] = meanings.get(name) or _summary(models_in(field)[0])
            if "$ref" in key:
                key.pop("default", None)  # of a section, whose keys have their own
    _allow_one_key(schema["$defs"][Transform.__name__])
    _drop_titles(schema)
    return {"$schema": DIALECT, "title": "Configuration of tfinpaint", **schema}


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field):
            yield from _models(inner)


def _summary(section: type[BaseModel]) -> str:
    """Return the first paragraph of what is said about a section."""
    return " ".join((section.__doc__ or "").split("\n\n")[0].split())


def _allow_one_key(transform: dict[str, Any]) -> None:
    """State that a step of a list of transforms has exactly one key, with a value."""
    transform |= {"minProperties": 1, "maxProperties": 1}
    for key in transform["properties"].values():
        choices = [choice for choice in key.pop("anyOf") if choice != {"type": "null"}]
        key.pop("default")  # null
        key |= choices[0] if len(choices) == 1 else {"anyOf": choices}


def _drop_titles(schema: Any) -> None:
    """Remove the titles that pydantic makes of the names of keys, and the format of paths, which JSON Schema lacks."""
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _drop_titles(value)
    if isinstance(schema, dict):
        for name in ("title", "format"):
            if isinstance(schema.get(name), str):
                del schema[name]
