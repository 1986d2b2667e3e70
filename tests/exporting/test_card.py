"""The lines of a model card open a photo with the pixels that the run decodes."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.exporting.card import PHOTO, USAGE

GREY = np.random.default_rng(0).integers(0, 2**16, (9, 14), np.uint16)


def opened(monkeypatch: pytest.MonkeyPatch, folder) -> np.ndarray:
    """Return the photo in a folder as the lines of a card open it."""
    monkeypatch.chdir(folder)
    values = {"np": np, "Image": Image}
    exec(PHOTO, values)  # noqa: S102
    return values["photo"]


@pytest.mark.parametrize("kind", ["png", "pgm", "little TIFF", "big TIFF", "palette", "colours"])
def test_a_photo_has_the_pixels_that_the_run_decodes(tmp_path, monkeypatch, kind):
    path = tmp_path / "photo.jpg"
    match kind:
        case "png":
            Image.fromarray(GREY).save(path, "PNG")
        case "pgm":
            path.write_bytes(b"P5\n14 9\n65535\n" + GREY.astype(">u2").tobytes())
        case "little TIFF" | "big TIFF":
            tifffile.imwrite(path, GREY, byteorder="<" if kind == "little TIFF" else ">")
        case "palette":
            Image.fromarray((GREY % 256).astype(np.uint8)).convert("P").save(path, "PNG")
        case "colours":
            Image.fromarray(np.stack([GREY % 256] * 3, axis=-1).astype(np.uint8)).save(path, "PNG")
    photo = opened(monkeypatch, tmp_path)
    assert photo.dtype == np.uint8
    assert np.array_equal(photo, np.broadcast_to(read_image(path, DecodeOptions()), (9, 14, 3)))
    if kind in ("png", "pgm", "little TIFF", "big TIFF"):
        assert np.array_equal(photo[..., 0], GREY // 257)


def test_the_lines_of_each_classifier_open_a_photo_so():
    assert [kind for kind, lines in USAGE.items() if PHOTO in lines] == ["keras", "savedmodel", "onnx"]
