"""Write the configuration reference into docs/configuration.md, from the schema; a test checks that it is up to date.

usage: python scripts/config_reference.py
"""

import ast
import inspect
import itertools
import json
import sys
import types
import typing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the schema beside this file, whatever is installed

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tfinpaint.config.schema import Config

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- configuration reference: made by scripts/config_reference.py -->", "<!-- end of the reference -->"


def reference() -> str:
    """Return a Markdown table with a row per key; a section appears once, a variant of it with its differences."""
    rows = ["| key | values | default | meaning |", "|---|---|---|---|", *_rows(Config, "", set())]
    return "\n".join(rows)


def _rows(section: type[BaseModel], prefix: str, told: set[type[BaseModel]]) -> list[str]:
    rows, meanings = [], _meanings(section)
    is_variant = section.__base__ in told
    for name, field in section.model_fields.items():
        if is_variant and name not in section.__annotations__:
            continue
        inner = [t for t in _flat(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if not inner or name in meanings:
            rows.append(f"| `{prefix}{name}` | {_values(field)} | {_default(field)} | {meanings.get(name, '')} |")
        for model in inner:
            item = "[]." if "list" in str(field.annotation) else "."
            if model not in told:
                rows += _rows(model, f"{prefix}{name}{item}", told)
            told.add(model)
    return rows


def _meanings(section: type[BaseModel]) -> dict[str, str]:
    """Return the text below each key of a section and of those that it inherits from, in one line."""
    found = {}
    for origin in reversed([each for each in section.__mro__ if each.__module__.startswith("tfinpaint.")]):
        body = ast.parse(inspect.getsource(origin)).body[0].body
        for key, text in itertools.pairwise(body):
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(key.target)] = " ".join(text.value.value.split())
    return found


def _flat(annotation: object) -> list[object]:
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
        return f"list of {_value(arguments[0])}s"
    names = {int: "integer", float: "number", bool: "true, false", Path: "path", str: "text", type(None): ""}
    return names.get(annotation, "mapping")


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return ""
    return f"`{json.dumps(default, default=str)}`"


def updated(text: str) -> str:
    """Return the text of the page with a new reference."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{reference()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
