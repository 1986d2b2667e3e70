"""Show one image over the epochs as an animated GIF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfinpaint.report.figures import Box, shrink_images
from tfinpaint.report.metrics_log import epoch_picture, pictures_by_epoch
from tfinpaint.storage.atomic import write_image
from tfinpaint.system.activity import reporting_activity

LEAST_HEIGHT = 192  # pixels; smaller frames are enlarged by a whole number
MOST_SIDE = 1024  # pixels; larger frames are shrunk, because all frames are in memory at a time
MOST_FRAMES = 60  # a longer run shows frames that are evenly spread over it
STRIP_HEIGHT = 24  # above the frame, with the names of its parts, and below it, with the epoch
PARTS = ("erased", "restored", "original")  # of a frame, side by side
FRAME_MS, LAST_FRAME_MS = 400, 2000


def add_frame(folder: Path, epoch: int, frame: np.ndarray) -> None:
    """Write the frame of an epoch to `epoch_<number>.png` in `folder`.

    Args:
        folder: a folder in `figures/` of the run folder; a resumed run deletes the frames in it that it makes again.
        frame: float [height, width, 3], RGB, or [height, width, 1], grey: PARTS of equal width, side by side. Values
            are clipped to 0 and 1, NaN is black.
    """
    frame = shrink_images(np.nan_to_num(frame)[None], MOST_SIDE)[0]
    pixels = np.rint(255 * np.clip(frame, 0, 1)).astype(np.uint8)
    write_image(epoch_picture(folder, epoch), Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))), "PNG")


def write_animation(folder: Path, path: Path) -> None:
    """Write an animated GIF of the frames in `folder`, in the order of their epochs, repeated without end.

    The names of its parts are above each frame, the number of the epoch is below it. Without frames nothing is written.
    """
    epochs = list(pictures_by_epoch(folder).items())
    if not epochs:
        return
    count = min(len(epochs), MOST_FRAMES)
    chosen = [epochs[round(i * (len(epochs) - 1) / max(count - 1, 1))] for i in range(count)]
    first, *others = [_labelled(file, f"epoch {epoch}") for epoch, file in reporting_activity(chosen)]
    durations = [FRAME_MS] * len(others) + [LAST_FRAME_MS]
    begin, end = chosen[0][0], chosen[-1][0]
    after = f"epoch {begin}" if begin == end else f"epochs {begin} to {end}"
    comment = f"Animation of one image with a hole, side by side: {', '.join(PARTS)}. It shows the image after {after}."
    write_image(
        path, first, "GIF", save_all=True, append_images=others, duration=durations, loop=0, comment=comment.encode()
    )


def photo_in_frame(height: int) -> Box:
    """Return where the images of an animation are, between its words; `height` is that of a frame in pixels."""
    strip = min(STRIP_HEIGHT / height, 0.5)
    return 0.0, strip, 1.0, 1.0 - strip


def _labelled(path: Path, text: str) -> Image.Image:
    """Return the picture, enlarged if it is small, below the names of its parts and above the text."""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    factor = -(-LEAST_HEIGHT // picture.height)
    picture = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    labelled = Image.new("RGB", (picture.width, picture.height + 2 * STRIP_HEIGHT), "white")
    labelled.paste(picture, (0, STRIP_HEIGHT))
    places = [((2 * number + 1) * picture.width // (2 * len(PARTS)), STRIP_HEIGHT // 2) for number in range(len(PARTS))]
    below = (picture.width // 2, picture.height + STRIP_HEIGHT * 3 // 2)
    for place, name in zip([*places, below], [*PARTS, text], strict=True):
        ImageDraw.Draw(labelled).text(place, name, fill="black", font=ImageFont.load_default(14), anchor="mm")
    # Each frame gets a palette of its own colours; by default Pillow dithers photographs to a few colours.
    return labelled.quantize(256)
