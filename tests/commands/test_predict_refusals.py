"""Photos, masks, outputs and combinations of arguments that `predict` refuses, and what it leaves as it was."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_config
from PIL import Image
from restorations import deep, noise, pixels_of, refuse, succeed, write_checkpoint, write_deep, write_mask

from tfinpaint.config.diff import as_values
from tfinpaint.config.loader import load_config
from tfinpaint.errors import UserError
from tfinpaint.inpainting import photo as photos
from tfinpaint.runs import photo_restoration
from tfinpaint.storage.write_errors import why_not_writable


def test_a_photo_that_is_too_large_for_memory_is_told(capsys, tmp_path, small_inpainter, monkeypatch):
    Image.fromarray(noise(60, 50)).save(tmp_path / "photo.png")
    write_mask(tmp_path / "mask.png", 60, 50)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(photo_restoration, "read_photo", fail)
    assert f"{tmp_path}/photo.png: is too large for this machine's memory" in refuse(
        capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png", "--overwrite"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"loss": {"function": "MSE", "target": "masked", "normalize_patches": 8}},
            "loss.normalize_patches makes its outputs normalised cells, which are no colours; train one with "
            "loss.normalize_patches: null, as the recipe of `tfinpaint demo` does",
        ),
        (
            {"loss": {"function": "MSE"}, "data__transforms": [{"resize": [32, 32]}]},
            "there is no mask in data.transforms; train one by tfinpaint pretrain with a mask in data.transforms",
        ),
    ],
)
def test_an_inpainter_that_cannot_restore_photos_says_why_whatever_it_is_given(
    tmp_path, small_inpainter, changes, reason
):
    """No command is named that would be refused next, and TensorFlow is not loaded for that."""
    run = shutil.copytree(small_inpainter, tmp_path / "run")
    config = load_config(write_config(tmp_path / "c.yaml", "pretrain", tmp_path, encoder="tiny", **changes))
    for checkpoint in (run / "model_checkpoints").iterdir():
        header = json.loads((checkpoint / "checkpoint.json").read_text())
        (checkpoint / "checkpoint.json").write_text(json.dumps(header | {"restoration": None}))
        progress = json.loads((checkpoint / "progress.json").read_text())
        (checkpoint / "progress.json").write_text(json.dumps(progress | {"config": as_values(config)}))
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    write_mask(tmp_path / "mask.png", 40, 50)
    code = "import sys; from tfinpaint.predict import main; sys.modules['keras'] = None; main(sys.argv[1:])"
    for names in (["photo.png"], ["photo.png", "mask.png"]):
        done = subprocess.run([sys.executable, "-c", code, "run", *names], cwd=tmp_path, capture_output=True, text=True)
        assert f"model_checkpoint_10: its model was not trained to restore photos: {reason}" in done.stderr
        assert "type:" not in done.stderr


def test_a_run_that_stands_behind_the_photos_is_named_with_the_right_order(
    capsys, tmp_path, small_inpainter, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(40, 50)).save("photo.png")
    Path("photos").mkdir()
    run = Path(shutil.copytree(small_inpainter, "my run"))
    order = "and no run; the run comes first: tfinpaint predict"
    assert f"photo.png: is an image, {order} 'my run' photo.png" in refuse(capsys, "photo.png", run)
    assert f"photo.png: is an image, {order} RUN photo.png mask.png" in refuse(capsys, "photo.png", "mask.png")
    assert f"photos: is a folder, {order} 'my run' photos" in refuse(capsys, "photos", run)
    assert "is an inpainter, which restores one photo" in refuse(capsys, run, "photos")
    for name in (
        "best",
        "model_checkpoints/model_checkpoint_10",
        "model_checkpoints/model_checkpoint_10/model.weights.h5",
    ):
        assert f"{order} 'my run/{name}' photo.png" in refuse(capsys, "photo.png", run / name)


def test_a_folder_that_cannot_be_written_is_told_with_the_reason(tmp_path, monkeypatch):
    assert why_not_writable(tmp_path) == ""
    assert why_not_writable(tmp_path / "none") == f"there is no folder {tmp_path}/none"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert why_not_writable(tmp_path) == f"no permission to write into {tmp_path}"
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert why_not_writable(tmp_path) == f"{tmp_path} is on a read-only file system"


def test_files_that_cannot_be_used(capsys, tmp_path, small_inpainter):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    text, cut, dot, large = (tmp_path / name for name in ("notes.jpg", "cut.jpg", "dot.png", "large.png"))
    text.write_text("no image")
    Image.fromarray(noise(200, 200)).save(cut)
    cut.write_bytes(cut.read_bytes()[:9000])
    Image.fromarray(noise(1, 1)).save(dot)
    for name, value in (("black.png", 0), ("white.png", 255)):
        Image.fromarray(np.full((40, 50), value, np.uint8)).save(tmp_path / name)
        Image.fromarray(np.full((1, 1), value, np.uint8)).save(tmp_path / f"dot_{name}")
    write_mask(large, 50, 40)
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(tmp_path.iterdir())
    cases = [
        ((small_inpainter, tmp_path / "pipe.png", mask), f"{tmp_path}/pipe.png: not an image: a pipe"),
        ((tmp_path / "none", photo, mask), f"no such checkpoint: {tmp_path}/none; "),
        ((small_inpainter, tmp_path / "none.jpg", mask), f"{tmp_path}/none.jpg: no such file"),
        ((small_inpainter, photo, tmp_path / "none.png"), f"{tmp_path}/none.png: no such file"),
        (
            (small_inpainter, tmp_path, mask, "--output", tmp_path / "x.png"),
            f"{small_inpainter}: is an inpainter, which restores one photo where",
        ),
        ((small_inpainter, photo, tmp_path), f"{tmp_path}: is a folder, not an image"),
        (
            (small_inpainter, photo, photo),
            f"{photo}: is the photo itself; the mask is another image, white where to restore it",
        ),
        ((small_inpainter, text, mask), f"{text}: not an image: text"),
        ((small_inpainter, photo, text), f"{text}: not an image: text"),
        ((small_inpainter, cut, mask), f"{cut}: truncated: image file is truncated"),
        (
            (small_inpainter, photo, large),
            f"{large}: is 40 x 50 pixels, {photo} is 50 x 40 as displayed; draw the mask at",
        ),
        (
            (small_inpainter, photo, tmp_path / "black.png"),
            f"{tmp_path}/black.png: erases nothing; paint the parts to restore",
        ),
        (
            (small_inpainter, photo, tmp_path / "white.png"),
            f"{tmp_path}/white.png: erases all of {photo}; paint the parts to keep",
        ),
        ((small_inpainter, dot, tmp_path / "dot_black.png"), "dot_black.png: erases nothing"),
        ((small_inpainter, dot, tmp_path / "dot_white.png"), "dot_white.png: erases all"),
        ((text, photo, mask), f"{text}: not a checkpoint of tfinpaint"),
        ((tmp_path, photo, mask), f"{tmp_path}: not a checkpoint of tfinpaint"),
    ]
    for arguments, message in cases:
        assert message in refuse(capsys, *arguments)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "contents", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n", b"\x89PNG\r\n\x1a\n"]
)
def test_a_photo_is_opened_again_as_carefully(tmp_path, monkeypatch, contents):
    """For its low bytes; another program may have written to it since the high ones were read."""
    file = tmp_path / "photo.png"
    write_deep(file, deep(3))
    open_image, times = photos.decode.open_image, []

    def open_and_write(path, *arguments):
        if times:
            file.write_bytes(contents)
        times.append(path)
        return open_image(path, *arguments)

    monkeypatch.setattr(photos.decode, "open_image", open_and_write)
    words = "not an image: a PostScript document" if contents.startswith(b"%") else "truncated or damaged"
    with pytest.raises(UserError, match=f"^{file}: {words}"):
        photos.read_photo(file)


def test_outputs_that_cannot_be_used(capsys, tmp_path, small_inpainter):
    photo, mask, there = tmp_path / "photo.png", tmp_path / "mask.png", tmp_path / "there.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    there.write_text("mine")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(photo)
    cases = [
        ("out.gif", "the suffix names no format; use one of .png .jpg .jpeg .webp .tif .tiff .bmp"),
        ("out", "the suffix names no format"),
        ("photo.png", "is the photo or the mask itself; name another file"),
        ("link.png", "is the photo or the mask itself"),
        ("mask.png", "is the photo or the mask itself"),
        ("folder.png", "is a folder; name the image to write"),
        ("none/out.png", f"there is no folder {tmp_path}/none"),
        (f"{'x' * 300}.png", "File name too long"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, message in cases:
        for more in ([], ["--overwrite"]):
            assert message in refuse(capsys, small_inpainter, photo, mask, "--output", tmp_path / name, *more)
    assert f"{there} already exists; add --overwrite" in refuse(capsys, small_inpainter, photo, mask, "--output", there)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    succeed(capsys, small_inpainter, photo, mask, "--output", there, "--overwrite")
    assert pixels_of(there).shape == (40, 50, 3)
    Image.fromarray(noise(1, 16384)).save(tmp_path / "long.png")
    write_mask(mask, 1, 16384)
    message = "WEBP holds at most 16383 pixels a side; name a .png"
    assert message in refuse(capsys, small_inpainter, tmp_path / "long.png", mask, "--output", tmp_path / "long.webp")


def test_what_kind_a_run_is_decides_and_a_wrong_combination_says_what_to_type(capsys, tmp_path, small_inpainter):
    write_checkpoint(tmp_path / "classes", kind="classifier", classes=("a", "b"), restoration=None)
    classifier, photo = tmp_path / "classes", tmp_path / "a photo.png"
    Image.fromarray(noise(40, 50)).save(photo)
    assert refuse(capsys, classifier, photo, "--output", tmp_path / "x.png") == (
        f"error: --output: {classifier} is a classifier, which predicts the classes of photos; type: tfinpaint predict "
        f"{classifier} '{photo}' --csv FILE"
    )
    told = f"error: {small_inpainter}: is an inpainter, which restores one photo where a mask is white; type: tfinpaint predict "
    end = " (a run of tfinpaint classify predicts the classes of photos)"
    assert refuse(capsys, small_inpainter, photo) == f"{told}{small_inpainter} '{photo}' MASK{end}"
    assert refuse(capsys, small_inpainter, tmp_path) == f"{told}{small_inpainter} PHOTO MASK{end}"
    assert refuse(capsys, small_inpainter, photo, photo, photo) == f"{told}{small_inpainter} '{photo}' MASK{end}"
    assert (
        refuse(capsys, small_inpainter, photo, photo, "--csv", "x.csv")
        == f"{told}{small_inpainter} '{photo}' '{photo}'{end}"
    )
    (tmp_path / "x.csv").touch()
    assert "x.csv already exists; add --overwrite, or name another file" in refuse(
        capsys, classifier, photo, "--csv", tmp_path / "x.csv"
    )
    assert f"{tmp_path}: is a folder; name the file" in refuse(capsys, classifier, photo, "--json", tmp_path)
    both = "--csv", tmp_path / "y", "--json", tmp_path / "none" / ".." / "y"
    assert refuse(capsys, classifier, photo, *both) == (
        f"error: --csv and --json name the same file, {tmp_path / 'y'}; name two files"
    )
    assert "none/x.csv: cannot be written: there is no folder" in refuse(
        capsys, classifier, photo, "--csv", tmp_path / "none" / "x.csv"
    )
    assert "nothing.jpg: no such file or folder" in refuse(capsys, classifier, "nothing.jpg")


def test_a_write_that_fails_leaves_the_old_output_and_nothing_else(capsys, tmp_path, small_inpainter, monkeypatch):
    photo, mask, output = tmp_path / "photo.png", tmp_path / "mask.png", tmp_path / "out.png"
    Image.fromarray(noise(40, 50)).save(photo)
    write_mask(mask, 40, 50)
    output.write_text("old")

    def fill_the_disk(image, path, *_, **__):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    kept = small_inpainter / "model_checkpoints" / "model_checkpoint_2"
    assert f"{output}: cannot be written: No space left on device" in refuse(
        capsys, kept, photo, mask, "--output", output, "--overwrite"
    )
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.png", "out.png", "photo.png"]


def test_under_a_launcher_the_first_rank_alone_works(capsys, tmp_path, small_inpainter, monkeypatch):
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    write_mask(tmp_path / "mask.png", 40, 50)
    monkeypatch.setenv("HOROVOD_RANK", "1")
    assert succeed(capsys, small_inpainter, tmp_path / "photo.png", tmp_path / "mask.png") == ""
    assert not (tmp_path / "photo_restored.png").exists()


@pytest.fixture
def arguments(tmp_path, small_inpainter) -> list[str]:
    """A run, a photo and a mask, for a command in a process of its own."""
    Image.fromarray(noise(40, 50)).save(tmp_path / "photo.png")
    write_mask(tmp_path / "mask.png", 40, 50, (4, 4, 12, 12))
    return [str(small_inpainter), str(tmp_path / "photo.png"), str(tmp_path / "mask.png")]


@pytest.mark.stress
def test_the_command_is_quiet(tmp_path, arguments):
    command = [sys.executable, "-m", "tfinpaint.predict", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        f"Restored 3.2 % of photo.png (50 x 40) in 1 window: {tmp_path}/photo_restored.png"
    )


def test_wrong_outputs_are_refused_before_tensorflow_is_imported(tmp_path, arguments):
    (tmp_path / "photo_restored.png").touch()
    code = (
        "import sys; from tfinpaint.predict import main; main(sys.argv[2:]); "
        "main([*sys.argv[2:], '--output', sys.argv[1]]); sys.exit('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.gif"), *arguments]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    first, second = again.stderr.splitlines()
    assert "already exists" in first
    assert "names no format" in second
