"""Read summary.json, the figures of a finished run, and check that its values have the types which runs write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from tfinpaint.errors import UserError
from tfinpaint.layout import SUMMARY
from tfinpaint.report.quantities import SUMMARY_FIGURES
from tfinpaint.storage.safe_json import read_json
from tfinpaint.system.paths import display_path

MOST_CHARACTERS = 40  # of a wrong value in a message


class ClassScores(BaseModel):
    """The scores of a class on the test images, as far as others than the report use them."""

    model_config = ConfigDict(strict=True)

    name: str = Field(alias="class")
    images: int
    recall: float | None
    precision: float | None


_WORDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
_GROUPS: Mapping[str, Any] = {  # key of a group of values that programs use -> its type
    "test_accuracy_interval": list[Annotated[float, Strict()]],
    "measurements": dict[str, dict[str, Annotated[float | None, Strict()]]],
    "few_training_images": dict[str, Annotated[int, Strict()]],
    "test_classes": list[ClassScores],
}


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run; None where there is none, or it is not JSON.

    Raises:
        UserError: A figure has another type than runs write.
    """
    found = read_json(folder / SUMMARY)
    if not isinstance(found, dict):
        return None
    if fault := fault_of_summary(found):
        raise UserError(f"{display_path(folder / SUMMARY)}: {fault}")
    return found


def fault_of_summary(summary: Mapping[str, Any]) -> str:
    """Return which figure is not as runs write it, with its value and what was expected; "" where none is."""
    for name, check in _checks().items():
        try:
            check.validate_python(summary[name])
        except KeyError:
            continue
        except ValidationError:
            value = json.dumps(summary[name], ensure_ascii=False)
            value = value if len(value) <= MOST_CHARACTERS else f"{value[:MOST_CHARACTERS]}..."
            return f"{name} is {value}, expected {_expected(name)}"
    accuracy = summary.get("test_accuracy")
    return f"test_accuracy is {accuracy:g}, expected 0 to 1" if accuracy and (accuracy < 0 or accuracy > 1) else ""


def _expected(name: str) -> str:
    return "values as a run writes them" if name in _GROUPS else _WORDS[SUMMARY_FIGURES[name].kind]


@cache
def _checks() -> dict[str, TypeAdapter[Any]]:
    """Return key of a summary -> a check of its value; single values may be null."""
    single = {name: Annotated[each.kind | None, Strict()] for name, each in SUMMARY_FIGURES.items()}
    return {name: TypeAdapter(kind) for name, kind in {**single, **_GROUPS}.items()}
