"""Pictures of a run: what the baselines beside them cost, and how it is said."""

import logging
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from conftest import write_config, write_training_and_testing

from tfinpaint.config.checks import check_command
from tfinpaint.config.loader import load_config
from tfinpaint.data.targets import normalize_cells
from tfinpaint.report.metrics_log import MetricsLog
from tfinpaint.runs import pictures
from tfinpaint.runs.epoch_end import draw_epoch
from tfinpaint.runs.pictures import Pictures, shown_baselines


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


def test_outputs_of_normalised_cells_are_shown_as_images(tmp_path, monkeypatch):
    """As they are, they are grey squares; with mean and contrast of the original cells, they can be judged."""
    loss = {"function": "MSE", "target": "masked", "normalize_patches": 8}
    steps = [{"resize": [32, 32]}, {"grid": {"size": 8, "ratio": 0.5}}]
    data = write_training_and_testing(tmp_path / "data")
    path = write_config(tmp_path / "c.yaml", "pretrain", data, encoder="tiny", loss=loss, data__transforms=steps)
    config = check_command(load_config(path), "pretrain", 1)
    assert (config.measures_pixels, config.shows_restorations) == (False, True)
    originals = np.random.default_rng(0).uniform(size=[2, 32, 32, 3]).astype(np.float32)
    mask = np.zeros([2, 32, 32, 1], np.float32)
    mask[:, 8:16, 16:24] = 1
    sample = {"originals": originals, "mask": mask, "inputs": originals * (1 - mask)}
    perfect = SimpleNamespace(predict=lambda inputs: normalize_cells(tf.constant(originals), 8).numpy()[: len(inputs)])
    shown = []
    monkeypatch.setattr(pictures, "draw_grid", lambda columns, title, path, note: shown.append((columns, note)))
    monkeypatch.setattr(Pictures, "_keep", lambda *_: None)
    monkeypatch.setattr(Pictures, "_draw_curve", lambda *_: None)
    drawn = Pictures(config, tmp_path, perfect, {k: tf.constant(v) for k, v in sample.items()}, "test images")
    drawn.draw(MetricsLog(tmp_path, None, enabled=False))
    ((columns, note),) = shown
    assert list(columns) == ["original", "input", "composite", "mean brightness\nof each cell"]
    assert np.allclose(columns["composite"], originals, atol=1e-5)
    flat = columns["mean brightness\nof each cell"]
    assert np.allclose(flat[:, 8:16, 16:24], originals[:, 8:16, 16:24].mean(axis=(1, 2, 3))[:, None, None, None])
    assert np.array_equal(flat[:, :8], originals[:, :8])
    assert "Brightness and contrast of each cell are those of the original" in note
    drawn.add_frame(1)
    assert len(list((tmp_path / "figures" / "animation").iterdir())) == 1
