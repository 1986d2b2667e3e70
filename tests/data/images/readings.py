"""Read an image at a size, or say why it cannot be read."""

import pytest

from tfinpaint.config.transforms import Transform
from tfinpaint.data.images import decode
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.images.unreadable import UnreadableImageError


def resized(height: int, width: int) -> DecodeOptions:
    return DecodeOptions((Transform(resize=[width, height]),))


def reason(path, reading=None) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode.read_image(path, reading or resized(8, 8))
    return str(caught.value)
