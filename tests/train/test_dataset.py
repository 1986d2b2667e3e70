"""The images that a run shows: each one once, spread over the set, whatever their number."""

import numpy as np
import pytest
from conftest import write_images

from tfinpaint.config import Config
from tfinpaint.data import recipes, sources
from tfinpaint.data.pipeline import Images, Shard
from tfinpaint.train.dataset import DataSet

CONFIG = Config.model_validate({"data": {"transforms": [{"resize": [32, 32]}, {"center": {}}]}})


@pytest.mark.parametrize(
    ("images", "shown"), [(5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4, 5]), (13, [0, 2, 4, 6, 8, 10])]
)
def test_a_sample_is_spread_and_repeats_no_image(tmp_path, images, shown):
    listing = sources.list_images(write_images(tmp_path, {"a": images}))
    recipe = recipes.inpainting(CONFIG, separate=False, augment=False)
    opened = Images.open(listing, Shard(), recipe.images, preload=True)
    sample = DataSet(CONFIG, opened, None, recipe).sample(6)["originals"].numpy()
    assert np.array_equal(sample, opened.pixels.numpy()[shown] / np.float32(255))
