"""Write the configuration reference into README.md, from the schema; the test suite checks that it is up to date.

usage: python scripts/config_reference.py
"""

import json
import typing
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tfinpaint.config import Config

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- configuration reference: made by scripts/config_reference.py -->", "<!-- end of the reference -->"


def reference() -> str:
    """A Markdown table with a row per key."""
    rows = ["| key | values | default | meaning |", "|---|---|---|---|", *_rows(Config, "")]
    return "\n".join(rows)


def _rows(section: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in section.model_fields.items():
        inner = [t for t in _flat(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if not inner or field.description:
            rows.append(f"| `{prefix}{name}` | {_values(field)} | {_default(field)} | {field.description or ''} |")
        for model in inner:
            item = "[]." if "list" in str(field.annotation) else "."
            rows += _rows(model, f"{prefix}{name}{item}")
    return rows


def _flat(annotation: object) -> list[object]:
    return [annotation, *(inner for argument in typing.get_args(annotation) for inner in _flat(argument))]


def _values(field: FieldInfo) -> str:
    choices = [v for t in _flat(field.annotation) if typing.get_origin(t) is typing.Literal for v in typing.get_args(t)]
    if choices:
        booleans = ["true", "false"] if bool in _flat(field.annotation) else []
        patterns = ["list of texts"] if "list" in str(field.annotation) else []
        return ", ".join([f"`{choice}`" for choice in [*choices, *booleans]] + patterns)
    names = {"int": "integer", "float": "number", "bool": "true, false", "Path": "path", "str": "text"}
    found = [names[t.__name__] for t in _flat(field.annotation) if isinstance(t, type) and t.__name__ in names]
    kind = found[0] if found else "mapping"
    return f"list of {kind}s" if "list" in str(field.annotation) else kind


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel):
        return ""
    return f"`{json.dumps(default, default=str)}`"


def updated(text: str) -> str:
    """README text with its reference made anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{reference()}\n\n{END}{tail}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
