"""Frames over the epochs: order, number, size, and what a resumed run keeps of them."""

import numpy as np
import pytest
from PIL import Image

from tfinpaint.report import animation
from tfinpaint.report.animation import add_frame, write_animation
from tfinpaint.report.metrics_log import MetricsLog


def add_frames(folder, epochs, size=(32, 96)):
    """Frames whose grey value tells their epoch."""
    for epoch in epochs:
        add_frame(folder, epoch, np.full((*size, 3), epoch / 100))


def shown(path):
    """(epochs told by the frames' grey values, durations in milliseconds)."""
    with Image.open(path) as file:
        epochs, durations = [], []
        for number in range(file.n_frames):
            file.seek(number)
            epochs.append(round(file.convert("RGB").getpixel((3, 30))[0] / 255 * 100))
            durations.append(file.info["duration"])
        return epochs, durations


def test_frames_follow_their_epochs_and_the_last_one_stays_longest(tmp_path):
    add_frames(tmp_path / "frames", [10, 2, 100, 9])
    write_animation(tmp_path / "frames", tmp_path / "a.gif")
    assert shown(tmp_path / "a.gif") == ([2, 9, 10, 100], [400, 400, 400, 2000])
    with Image.open(tmp_path / "a.gif") as file:
        assert file.info["loop"] == 0  # for ever
        assert file.info["comment"].endswith(b"original. It shows the image after epochs 2 to 100.")
        assert file.size == (6 * 96, 6 * 32 + 48)
        strips = []
        for number in range(file.n_frames):
            file.seek(number)
            strips.append(np.asarray(file.convert("L"))[-24:])
            names = np.asarray(file.convert("L"))[:24]
            assert all((names[:, part : part + 192] < 100).sum() > 50 for part in (0, 192, 384))
    assert all((strip < 100).sum() > 50 for strip in strips)  # something is written there
    assert len({strip.tobytes() for strip in strips}) == 4  # and not the same


def test_a_frame_keeps_its_pixels(tmp_path):
    frame = np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, 0.2]]])
    add_frame(tmp_path, 3, frame)
    add_frame(tmp_path, 4, frame[..., :1])
    assert np.asarray(Image.open(tmp_path / "epoch_3.png")).tolist() == [[[0, 128, 255], [0, 255, 51]]]
    assert np.asarray(Image.open(tmp_path / "epoch_4.png")).tolist() == [[[0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(("height", "expected"), [(1, 192), (100, 200), (192, 192), (300, 300)])
def test_small_images_are_enlarged_by_whole_numbers(tmp_path, height, expected):
    add_frames(tmp_path, [1], (height, 2 * height))
    write_animation(tmp_path, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as file:
        assert file.size == (2 * expected, expected + 48)


def test_a_long_run_is_thinned_out_from_its_first_to_its_last_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MOST_FRAMES", 5)
    add_frames(tmp_path, range(0, 81, 10))
    write_animation(tmp_path, tmp_path / "a.gif")
    assert shown(tmp_path / "a.gif")[0] == [0, 20, 40, 60, 80]


def test_without_frames_there_is_no_animation(tmp_path):
    write_animation(tmp_path / "none", tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_drops_the_frames_it_makes_again(tmp_path):
    folder = tmp_path / "figures" / "frames"
    add_frames(folder, [5, 10, 15])
    MetricsLog(tmp_path, None, enabled=True, first_epoch=10)
    write_animation(folder, tmp_path / "a.gif")
    assert shown(tmp_path / "a.gif")[0] == [5]
    with Image.open(tmp_path / "a.gif") as file:
        assert file.info["comment"].endswith(b"It shows the image after epoch 5.")


def test_an_animation_is_written_whole_or_not_at_all(tmp_path):
    add_frames(tmp_path, [1, 2])
    write_animation(tmp_path, tmp_path / "a.gif")
    before = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "epoch_3.png").write_bytes(b"damaged")
    with pytest.raises(OSError, match="cannot identify"):
        write_animation(tmp_path, tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == before
