"""Write report.html, a single file that contains its figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image

from tfinpaint.report.figures import ALT, PHOTOS
from tfinpaint.storage.atomic import write_text
from tfinpaint.version import __version__


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading above sentences, a table, figures and a text, as far as there are any.

    Attributes:
        sentences: what the section shows, a paragraph each.
        table: rows; the first one is the heading row.
        figures: PNG or GIF files in the order in which they are shown; missing files are skipped.
        text: preformatted text.
    """

    heading: str
    table: Sequence[Sequence[Any]] = field(default_factory=list)
    figures: Sequence[Path] = field(default_factory=list)
    text: str = ""
    sentences: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether the section has nothing but its heading; `write_page` skips it then."""
        return not (self.sentences or self.table or self.text or any(figure.exists() for figure in self.figures))


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page whole or not at all; all texts in it are escaped."""
    environment = Environment(loader=PackageLoader("tfinpaint.report", "."), autoescape=True)
    page = environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        sections=[
            {
                "heading": section.heading,
                "sentences": section.sentences,
                "table": [[_shown(cell) for cell in row] for row in section.table],
                "figures": [_embed(figure) for figure in section.figures if figure.exists()],
                "text": section.text,
            }
            for section in sections
            if not section.is_empty
        ],
    )
    write_text(path, page)


def summary_table(summary: Mapping[str, Any]) -> list[list[Any]]:
    """Return a row for each single value of a summary; groups of values have tables of their own."""
    figures = {
        name.replace("_", " "): value
        for name, value in summary.items()
        if value is not None and not isinstance(value, Mapping | list)
    }
    return [["figure", "value"], *([name, value] for name, value in figures.items())]


def _shown(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def _embed(figure: Path) -> dict[str, str]:
    """Return a figure with the text that stands for it, and whether it is one of images ("photos") or a "diagram"."""
    kind = "gif" if figure.suffix == ".gif" else "png"
    try:
        with Image.open(figure) as file:
            texts = file.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # no figure of ours, in a run's folder
        texts = {}
    comment = texts.get("comment", b"")  # of a GIF file
    said = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else ""
    alt = texts.get(ALT) or said or figure.stem.replace("_", " ")
    return {
        "alt": alt,
        "kind": "photos" if kind == "gif" or PHOTOS in texts else "diagram",
        "data": f"data:image/{kind};base64,{base64.b64encode(figure.read_bytes()).decode()}",
    }
