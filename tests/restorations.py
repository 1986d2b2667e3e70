"""Restore photos in the process of the tests: networks of random weights, photos, masks, and the command."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from tfinpaint.checkpoint.header import Header, InputSpec, RankState, SavedProgress
from tfinpaint.checkpoint.reader import weight_file
from tfinpaint.checkpoint.store import TrainingState, save_checkpoint
from tfinpaint.inpainting.tiling import Network
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder
from tfinpaint.predict import main
from tfinpaint.runs import photo_restoration
from tfinpaint.runs.photo_restoration import load_network

SIZE = 32  # of the network


def write_checkpoint(
    folder: Path, epoch: int = 1, channels: int = 3, target_channels: int = 3, **changes
) -> keras.Model:
    """A tiny context encoder of random weights, as checkpoint `model_checkpoint_<epoch>` of this folder."""
    keras.utils.set_random_seed(epoch)
    encoder = build_encoder("tiny", "before_add", SIZE, SIZE, channels)
    kind = changes.get("kind", "inpainter")
    model = build_inpainter(encoder, target_channels) if kind == "inpainter" else build_classifier(encoder, 2)
    if kind == "inpainter":  # random weights make nearly one grey: let what the network sees show in what it makes
        made = model(np.random.default_rng(1).random((1, SIZE, SIZE, channels), np.float32), training=False)
        last = model.get_layer("decoder_layer_5").kernel
        last.assign(last / (4 * np.ptp(made)))
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    fields = {"kind": kind, "epoch": epoch, "step": 10 * epoch, "encoder": "tiny", "encoder_output": "before_add"}
    fields |= {"batch_size": 8, "steps_per_epoch": 10, "height": SIZE, "width": SIZE, "channels": channels}
    fields |= {"target_channels": target_channels, "restoration": InputSpec(fill="black")} | changes
    ranks = RankState(np.zeros((1, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0), np.int64))
    save_checkpoint(folder, Header(**fields), SavedProgress(), ranks, TrainingState(model, optimizer, None), None)
    return model


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return pixels if channels > 1 else pixels[..., 0]


def write_mask(path: Path, height: int, width: int, box: tuple[int, int, int, int] = (0, 0, 1, 2)) -> np.ndarray:
    """White in the box (top, left, bottom, right), black elsewhere; returned as bool."""
    hole = np.zeros((height, width), bool)
    hole[box[0] : box[2], box[1] : box[3]] = True
    Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)).save(path)
    return hole


@functools.cache
def _loaded(path: Path, _written_at: int | None) -> tuple[Header, Network]:
    return load_network(path)


def load_once(path: Path) -> tuple[Header, Network]:
    """Load and trace each checkpoint once for all tests in this process."""
    file = weight_file(path)
    return _loaded(path, file.stat().st_mtime_ns if file.exists() else None)


def predict(arguments: tuple[object, ...]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_restoration, "load_network", load_once)
        return main([str(argument) for argument in arguments])


def succeed(capsys, *arguments: object) -> str:
    assert predict(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refuse(capsys, *arguments: object) -> str:
    """The one line of a command that must fail cleanly."""
    assert predict(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    return shown.err.strip()


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def deep(channels, height=70, width=40):
    pixels = np.random.default_rng(1).integers(0, 2**16, (height, width, channels), np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


def write_deep(path, pixels, **options):
    """A file of 16 bits per channel, by other programs than ours."""
    if path.suffix == ".tif":
        options |= {"extrasamples": ["unassalpha"]} if pixels.shape[-1] == 4 else {}
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
    else:
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        path.write_bytes(tf.io.encode_png(pixels).numpy())


def read_deep(path):
    if path.suffix == ".tif":
        return tifffile.imread(path)
    pixels = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
