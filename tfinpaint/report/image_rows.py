"""Draw rows of images with captions, such as neighbours in feature space, or images that were classified wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tfinpaint.report.figures import Box, own_style, save_figure, shrink_images

MOST_ROWS, MOST_IMAGES = 8, 8  # of a figure, and of a row
MOST_SIDE = 96  # pixels of an image in a figure
MOST_CAPTION = 20  # characters
LEAST_COLUMNS = 4  # of the width of a figure, which titles of rows need
RIGHT, WRONG = "✓", "✗"


@dataclass(frozen=True)
class ImageRow:
    """A row of a figure of images.

    Attributes:
        title: of the row; "" without one.
        images: float [images, height, width, channels], 0 to 1; at most MOST_IMAGES.
        captions: one for each image, below it.
        right: whether a caption is marked as right (True), as wrong (False), or not at all (None).
        below: a second line below each image; () for none.
    """

    title: str
    images: np.ndarray
    captions: Sequence[str]
    right: Sequence[bool | None]
    below: Sequence[str] = ()


@own_style()
def draw_image_rows(rows: Sequence[ImageRow], path: Path, alt: str) -> None:
    """Draw rows of images with captions; a mark and a colour tell right from wrong.

    Args:
        alt: as in `save_figure`.
    """
    columns = max(LEAST_COLUMNS, *(len(row.images) for row in rows))
    titled = 0.16 if any(row.title for row in rows) else 0.04  # of a row; 1 is the width of a column
    height = titled + (1.27 if any(any(row.below) for row in rows) else 1.15)
    wide, tall = columns + 0.05, height * len(rows) + 0.1
    figure = Figure(figsize=(1.3 * wide, 1.3 * tall))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    boxes: list[Box] = []
    for place, row in enumerate(rows):
        top = height * place + titled
        axes.text(0, top - 0.05, row.title, fontsize=8, weight="bold", parse_math=False)
        for column, (image, caption, right) in enumerate(zip(_small(row.images), row.captions, row.right, strict=True)):
            extent = column, column + 0.95, top + 0.95, top
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent, aspect="auto")
            left, upper = (column + 0.05) / wide, (top + 0.1) / tall
            boxes.append((left, upper, left + 0.95 / wide, upper + 0.95 / tall))
            text, colour = _marked(caption, right)
            axes.text(column, top + 1.05, text, fontsize=8, color=colour, parse_math=False)
        for column, text in enumerate(row.below):
            axes.text(column, top + 1.17, _marked(text, None)[0], fontsize=8, parse_math=False)
    axes.set(xlim=(-0.05, columns), ylim=(height * len(rows), -0.1))
    save_figure(figure, path, alt, photos=boxes)


def _marked(caption: str, right: bool | None) -> tuple[str, str]:
    """Return the text of a caption, and its colour."""
    text = " ".join(caption.split())[:MOST_CAPTION]
    if right is None:
        return text, "black"
    return (f"{RIGHT} {text}", "darkgreen") if right else (f"{WRONG} {text}", "firebrick")


def _small(images: np.ndarray) -> np.ndarray:
    shown = shrink_images(images, MOST_SIDE)
    return (shown if shown.shape[-1] == 3 else shown.mean(axis=-1)).clip(0, 1)
