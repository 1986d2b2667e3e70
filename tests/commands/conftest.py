"""A trained classifier that several commands use."""

from pathlib import Path

import pytest
from commandline import succeed
from conftest import write_config, write_images, write_training_and_testing

# Steps without any of which probabilities are others: the images are 20 x 24, 60 x 31 and 50 x 90 pixels.
STEPS = {
    "data__transforms": [{"resize": [40, 36]}, {"center_crop": [32, 32]}, {"random_horizontal_flip": 0.5}],
    "data__input_transforms": [{"normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}],
}


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, a classifier with the encoder `tiny`, its `data`, and images that it never saw in `new`."""
    folder = tmp_path_factory.mktemp("tiny")
    data = write_training_and_testing(folder)
    write_images(folder / "new", {"cold": 3, "warm": 2}, size=(60, 31), seed=2)
    write_images(folder / "new", {"cold": 2}, size=(50, 90), seed=3)
    config = write_config(folder / "c.yaml", "classify", data, encoder="tiny", num_epochs=1, **STEPS)
    succeed("classify", "--config", config)
    return folder
