"""Images of 16 bits per channel: which they are, their grey values, and how much of the range of 16 bits they use."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tfinpaint.system.wording import counted

WHITE = 2**16 - 1
ENOUGH = WHITE / 4  # with a brightest pixel below this, 16 bits were hardly meant as a range from black to white
DIVISOR = 257  # from 16 bits to 8

_DEEP = re.compile("(I|LA|RGB[AaX]?);16")  # of raw modes
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF files, and one of its values


def raw_mode(file: Image.Image) -> str:
    """Return the pixel layout of a file as Pillow's decoders name it, such as RGB;16B; "" if it is unknown.

    It is known until the pixels are decoded.
    """
    tile = getattr(file, "tile", None)
    arguments = tile[0].args if tile else ""
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return raw if isinstance(raw, str) else ""


def is_deep(file: Image.Image) -> bool:
    """Return whether a file whose pixels are not decoded yet has 16 bits per channel."""
    return bool(_DEEP.match(raw_mode(file)))


def deep_grey(image: Image.Image) -> np.ndarray:
    """Return the values of a grey image of 16 bits, uint16 [height, width]; 0 is black, whatever a TIFF file says."""
    values = np.asarray(image).astype(np.uint16)
    # Pillow inverts such files of up to 8 bits, but not of 16.
    return ~values if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values


def brightest_of(image: Image.Image) -> int:
    """Return a value of 16 bits that no pixel of such an image exceeds.

    Of grey images it is the largest value; of colours, whose low bytes Pillow drops, the largest of that high byte.
    """
    if image.mode not in ("RGB", "RGBA", "LA"):
        return int(deep_grey(image).max())
    pixels = np.asarray(image)
    colours = pixels[..., :-1] if image.mode.endswith("A") else pixels
    return 256 * int(colours.max()) + 255


def low_range_message(brightest: Sequence[int]) -> str:
    """Return a line for images of 16 bits that are all dark, as those of cameras with 10 or 12 bits are; "" for others.

    Args:
        brightest: of each image of 16 bits, as `brightest_of` returns it.
    """
    most = max(brightest, default=WHITE)
    if most >= ENOUGH:
        return ""
    return (
        f"{counted(len(brightest), 'image')} of 16 bits with no pixel brighter than {most:,} of {WHITE:,}: divided by "
        f"{DIVISOR}, at most {most // DIVISOR + 1} of 256 grey levels are left of them; save them scaled to the whole "
        'range (docs/bad_images.md, "Images of 16 bits")'
    )
