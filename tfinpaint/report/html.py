"""Write report.html, a single file that contains its figures and explains its terms."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image

from tfinpaint.report.animation import photo_in_frame
from tfinpaint.report.cells import Best, Code, Link, shown
from tfinpaint.report.figures import ALT, PHOTOS
from tfinpaint.report.glossary import explain_terms
from tfinpaint.storage.atomic import write_text
from tfinpaint.version import __version__

LONG_WORD = 24  # characters of a word in a cell, such as a path, above which it may be broken
SHORT_TEXT = 12  # characters of a cell that may be as narrow as its longest word
LEAST_SCALE = 0.55  # of a figure, whose words could not be read otherwise; it is scrolled where the screen is narrower


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading above sentences, figures, a table and texts, as far as there are any.

    Attributes:
        sentences: what the section shows, a paragraph each.
        figures: PNG or GIF files in the order in which they are shown; missing files are skipped.
        links: to other pages, below the sentences.
        titles: name of a figure's file -> heading above it; {} for none.
        table: rows of cells, which are numbers, texts or those of `cells`; the first one is the heading row, and is
            not shown if its cells are empty.
        note: a sentence below the table.
        text: preformatted text, which is folded away until a reader asks for it.
    """

    heading: str
    table: Sequence[Sequence[Any]] = field(default_factory=list)
    figures: Sequence[Path] = field(default_factory=list)
    text: str = ""
    sentences: Sequence[str] = ()
    note: str = ""
    links: Sequence[Link] = ()
    titles: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Return whether the section has nothing but its heading; `write_page` skips it then."""
        rows = self.table[1:]  # a heading row alone shows nothing
        return not (self.sentences or rows or self.text or any(figure.exists() for figure in self.figures))

    def words(self) -> str:
        """Return the words of the section whose terms are explained: all but preformatted texts."""
        cells = [cell.value if isinstance(cell, Best) else cell for row in self.table for cell in row]
        return "\n".join([self.heading, *self.sentences, self.note, *(each for each in cells if isinstance(each, str))])


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page whole or not at all, with an explanation of the terms in it; all texts in it are escaped."""
    environment = Environment(loader=PackageLoader("tfinpaint.report", "."), autoescape=True, trim_blocks=True)
    filled = [section for section in sections if not section.is_empty]
    figures = [
        [
            {**_embed(figure), "title": section.titles.get(figure.name, "")}
            for figure in section.figures
            if figure.exists()
        ]
        for section in filled
    ]
    words = [section.words() for section in filled] + [figure["alt"] for each in figures for figure in each]
    page = environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        terms=explain_terms("\n".join(words)),
        sections=[
            {
                "heading": section.heading,
                "sentences": section.sentences,
                "links": section.links,
                "head": [shown(cell) for cell in section.table[0]] if section.table and any(section.table[0]) else [],
                "rows": [[_cell(cell) for cell in row] for row in section.table[1:]],
                "note": section.note,
                "figures": embedded,
                "text": section.text,
            }
            for section, embedded in zip(filled, figures, strict=True)
        ],
    )
    write_text(path, page)


def _cell(cell: Any) -> dict[str, Any]:
    """Return the text of a cell, what it is, and how much of the width it needs."""
    kind, address, value = "plain", "", cell
    match cell:
        case Best(value):
            kind = "best"
        case Link(value, address):
            kind = "link"
        case Code(value):
            kind = "code"
    text = shown(value)
    longest = max(map(len, text.split()), default=0)
    width = "long" if longest > LONG_WORD else "wide" if len(text) > SHORT_TEXT else ""
    classes = " ".join(filter(None, ["best" if kind == "best" else "", width]))
    return {"text": text, "kind": kind, "address": address, "classes": classes}


def _embed(figure: Path) -> dict[str, Any]:
    """Return a figure with the text that stands for it, and what it is: images ("photos"), a "diagram", or "moving".

    A moving one has its last frame as a "still" picture, for readers who prefer that. "least" is the number of pixels
    that a figure is wide at least.
    """
    moves, still, width, photos = figure.suffix == ".gif", "", 0, None
    try:
        with Image.open(figure) as file:
            texts, width = file.info, file.width
            if moves:
                still, photos = _last_frame(file), json.dumps([photo_in_frame(file.height)])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # no figure of ours, in a run's folder
        texts = {}
    comment = texts.get("comment", b"")  # of a GIF file
    said = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else ""
    alt = texts.get(ALT) or said or figure.stem.replace("_", " ")
    kind = "moving" if still else "photos" if moves or PHOTOS in texts else "diagram"
    data, least = _data("gif" if moves else "png", figure.read_bytes()), round(LEAST_SCALE * width)
    around = _around(photos or texts.get(PHOTOS))
    return {"alt": alt, "kind": kind, "data": data, "still": still, "least": least, "around": around}


def _around(photos: Any) -> str:
    """Return the corners of a polygon around all photos of a picture, for CSS; "" where they are not known.

    A dark page inverts what is in it, such as white margins and black words, and leaves the photos as they are.
    """
    try:
        boxes = [tuple(map(float, box)) for box in json.loads(photos)]
        outer = (0.0, -0.1), (1.1, -0.1), (1.1, 1.1), (-0.1, 1.1), (-0.1, -0.1), (0.0, -0.1)  # no line at the edges
        corners = [*outer]
        for left, upper, right, lower in boxes:
            edge = [(left, upper), (right, upper), (right, lower), (left, lower), (left, upper)]
            corners += [*edge, outer[0]]
        if not boxes or not all(0 <= part <= 1 for box in boxes for part in box):
            return ""
    except (TypeError, ValueError, RecursionError):  # "yes" of older versions, or no figure of ours
        return ""
    return ", ".join(f"{100 * x:.2f}% {100 * y:.2f}%" for x, y in corners)


def _last_frame(file: Image.Image) -> str:
    file.seek(getattr(file, "n_frames", 1) - 1)
    contents = io.BytesIO()
    file.convert("RGB").save(contents, "PNG")
    return _data("png", contents.getvalue())


def _data(kind: str, contents: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(contents).decode()}"
