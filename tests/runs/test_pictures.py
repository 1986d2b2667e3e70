"""Pictures of a run: what the baselines beside them cost, and how it is said."""

import logging
from types import SimpleNamespace

import numpy as np

from tfinpaint.runs.epoch_end import draw_epoch
from tfinpaint.runs.pictures import shown_baselines


def test_baselines_of_large_images_are_shown_at_a_reduced_size(caplog):
    caplog.set_level(logging.INFO)
    images = np.full((2, 512, 1024, 1), 0.25, np.float32)
    images[:, :, 512:] = 0.75
    masks = np.zeros((2, 512, 1024, 1), np.float32)
    masks[:, 100:200, 100:200] = 1
    images[:, 100:200, 100:200] = 1.0  # what the hole hides
    shown = shown_baselines(images, masks)
    assert list(shown) == [f"{name}\nat 342 x 171" for name in ("mean colour", "nearest", "biharmonic")]
    assert {restored.shape for restored in shown.values()} == {(2, 171, 342, 1)}
    for name in ("nearest", "biharmonic"):
        assert np.allclose(shown[f"{name}\nat 342 x 171"][:, :, :170], 0.25, atol=1e-3)
    assert "The figures show the baselines at 342 x 171 pixels: the images have 1024 x 512" in caplog.text


def test_baselines_of_small_images_are_shown_as_they_are(caplog):
    images, masks = np.full((1, 256, 256, 3), 0.25, np.float32), np.zeros((1, 256, 256, 1), np.float32)
    masks[0, 9, 9] = 1
    assert {name: restored.shape for name, restored in shown_baselines(images, masks).items()} == dict.fromkeys(
        ("mean colour", "nearest", "biharmonic"), (1, 256, 256, 3)
    )
    assert caplog.text == ""


def test_the_last_pictures_are_announced(tmp_path, caplog):
    """They take seconds in which nothing else is printed."""
    caplog.set_level(logging.INFO)
    config, drawn = SimpleNamespace(figures_interval=1, num_epochs=2), []
    for epoch, lines in ((1, []), (2, ["Drawing the figures of the report..."])):
        draw_epoch(config, tmp_path, "metrics", drawn.append, None, epoch)
        assert caplog.messages == lines
    assert drawn == ["metrics", "metrics"]
