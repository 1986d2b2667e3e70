"""Write the configuration reference into docs/configuration.md, from the schema; a test checks that it is up to date.

usage: python scripts/config_reference.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the schema beside this file, whatever is installed

from tfinpaint.config.keys import Key, list_keys

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- configuration reference: made by scripts/config_reference.py -->", "<!-- end of the reference -->"


def reference() -> str:
    """Return a Markdown table with a row for each key."""
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*rows, *(_row(key) for key in list_keys())])


def _row(key: Key) -> str:
    default = key.default if key.default in ("", "required") else f"`{key.default}`"
    return f"| `{key.name}` | {key.values} | {default} | {key.meaning} |"


def updated(text: str) -> str:
    """Return the text of the page with a new reference."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{reference()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
