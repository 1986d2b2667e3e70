"""What all sections of a configuration share: strict validation, names in any case, and unused keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict


class Section(BaseModel):
    """A mapping of the configuration: immutable, strictly typed, without unknown keys.

    The text below a key describes it in docs/configuration.md (`scripts/config_reference.py`).
    """

    # Validators are built when they are first used: to build them for every section takes as long again.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)


PathText = Annotated[Path, Strict(False)]  # written as text; `loader` makes it absolute
Positive = Annotated[int, Field(ge=1)]


def any_case(literal: Any, **aliases: str) -> BeforeValidator:
    """Return a validator that reads the names of a Literal in any case, as rmldnn does (`nll` and `NLL`)."""
    names = {name.lower(): name for name in get_args(literal)} | aliases
    listed: Any = Literal[(*get_args(literal), *map(str.upper, aliases))]  # what an editor proposes
    return BeforeValidator(
        lambda given: names.get(given.lower(), given) if isinstance(given, str) else given,
        json_schema_input_type=listed,
    )


def refuse_unused(section: Any, used: Sequence[str]) -> None:
    """Raise ValueError if a key has a value although the `type` of its section does not use it."""
    for name, field in type(section).model_fields.items():
        if name not in used and getattr(section, name) != field.default:
            raise ValueError(f"{section.type} has no {name}")
