"""What is built into an export makes the same pixels as the run's own reading of images, to the bit."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import split_steps
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.data.transforms import Keys, to_float
from tfinpaint.errors import UserError
from tfinpaint.exporting.preprocessing import prepared

SIZES = [(24, 32), (100, 57), (31, 33), (70, 50), (301, 300), (480, 40), (40, 480)]  # height, width
DECODED = {
    "resize": [{"resize": [32, 24]}],
    "crop": [{"center_crop": [31, 23]}],
    "resize and crop": [{"resize": [45, 40]}, {"center_crop": [32, 31]}],
}
LATER = {
    "normalize": {"normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}},
    "grey": {"grayscale": True},
    "BGR": {"convert_color": "RGB2BGR"},
    "YUV": {"convert_color": "RGB2YUV"},
    "resize": {"resize": [20, 9]},
    "crop": {"center_crop": [20, 9]},
}


def preprocessing(steps, channels=3):
    listed = [Transform.model_validate(step) for step in steps]
    return split_steps(tuple(enumerate(listed)), DecodeOptions(channels=channels))


def model_of(steps, channels=3) -> keras.Model:
    images = keras.Input((None, None, 3), dtype="uint8")
    return keras.Model(images, prepared(images, preprocessing(steps, channels)))


def read(pixels, steps, channels=3) -> np.ndarray:
    """What the run makes of an image in a file."""
    file, recipe = io.BytesIO(), preprocessing(steps, channels)
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    images = to_float(read_image(file, recipe.decoding)[None])
    return recipe.apply(images, recipe.per_batch, Keys(0, 0, np.zeros(1, np.int64))).numpy()


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("steps", "channels"), [*((steps, 3) for steps in DECODED.values()), (DECODED["resize"], 1)])
def test_pixels_are_those_of_the_decoder(steps, channels):
    model = model_of(steps, channels)
    for size in SIZES:
        pixels = photo(*size)
        found = model(pixels[None]).numpy() * 255
        assert np.abs(found - read(pixels, steps, channels) * 255).max() < 1e-3, size


@pytest.mark.parametrize("name", LATER)
def test_later_steps_are_those_of_the_run(name):
    steps = [{"resize": [24, 28]}, LATER[name]]
    pixels = photo(50, 41)
    np.testing.assert_allclose(model_of(steps)(pixels[None]), read(pixels, steps), atol=2e-6)


def test_a_batch_is_prepared_image_by_image():
    model, both = model_of(DECODED["resize"]), np.stack([photo(31, 33), photo(31, 33)[::-1]])
    assert np.array_equal(model(both)[1:], model(both[1:]))


def test_steps_that_cannot_be_built_in_are_named():
    with pytest.raises(UserError, match=r"rotate .* cannot be a part of an export"):
        model_of([{"resize": [24, 24]}, {"rotate": 30}])
    with pytest.raises(UserError, match="begins with a resize or a center_crop"):
        model_of([{"grayscale": True}, {"resize": [24, 24]}])
