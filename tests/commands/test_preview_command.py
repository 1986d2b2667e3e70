"""What a preview writes besides its picture, and the outputs, numbers and configurations that it refuses."""

import json
import subprocess
import sys

from conftest import write_config, write_images
from PIL import Image
from previews import refuse, succeed, write

from tfinpaint import preview


def test_the_picture_is_written_over_and_has_a_row_for_each_image(capsys, tmp_path, images):
    (images / "training" / "notes.txt").write_text("passed over")
    path = write(tmp_path, images, data__grayscale=True, loss={"function": "MSE", "target": "masked", "overlap": 1})
    (tmp_path / "out.png").write_text("old")
    heights = []
    for count in (1, 3):
        assert succeed(capsys, path, "--images", count)[0].endswith("24 images; 1 file excluded: 1 .txt (notes.txt)")
        with Image.open(tmp_path / "out.png") as picture:
            assert picture.format == "PNG"
            heights.append(picture.height)
    assert 2 * heights[0] < heights[1] + 110
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.png", "pretrain.yaml"]


def test_outputs_that_cannot_be_used(capsys, tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "held_out", {"cold": 1})
    (tmp_path / "link").symlink_to(images / "training", target_is_directory=True)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("mine")
    path = write(tmp_path, images, data__test_input_path=str(tmp_path / "held_out"))
    inside = "lies in data.input_path"
    cases = [
        ("out.jpg", "the preview is a PNG file; name it out.png"),
        ("out", "the preview is a PNG file; name it out.png"),
        ("folder.png", "is a folder; name a PNG file"),
        (".", "is a folder; name a PNG file"),
        ("data/training/out.png", inside),
        ("data/training/cold/000.png", inside),
        ("link/deeper/out.png", inside),
        ("data/../data/training/out.png", inside),
        ("held_out/out.png", "lies in data.test_input_path"),
        ("file/out.png", "cannot be written: "),
        (f"{'x' * 300}.png", "File name too long"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for output, message in cases:
        assert message in refuse(capsys, path, "--output", output)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_number_of_images_that_cannot_be_drawn(capsys, tmp_path, images):
    path = write(tmp_path, images)
    for number in ("0", "-1", "many", "2.5", "101"):
        assert preview.main(["--config", str(path), "--images", number]) == 2
        assert f"{number}: expected a whole number, 1 to 100" in capsys.readouterr().err


def test_wrong_configurations_are_refused_before_tensorflow_is_imported(tmp_path, images):
    (tmp_path / "empty").mkdir()
    pretrain = write(tmp_path, images)
    classify = write_config(tmp_path / "classify.yaml", "classify", images, data__test_input_path=None)
    sets = lambda *changes: [str(pretrain), *(part for change in changes for part in ("--set", change))]  # noqa: E731
    cases = [
        ([str(tmp_path / "none.yaml")], "none.yaml"),
        (
            [str(classify)],
            "pretrain needs data.target_type: images; this configuration is for classify: start it with `tfinpaint classify`",
        ),
        (sets("data.batch_sise=8"), "batch_sise"),
        (sets("data.input_path=/none"), "error: pretrain.yaml: data.input_path: no such folder: /none"),
        (sets("data.transforms=[{resize: [32, 32]}]"), "error: pretrain.yaml: data.target_path is missing"),
        (sets("data.transforms=[{resize: [32, 32]}, {center: {side: 0.01}}]"), "center.side 0.01 erases 0 x 0 pixels"),
        (
            sets("data.input_path=null", f"data.test_input_path={images}/training", "checkpoints.load=pretrain.yaml"),
            "data.input_path is missing: there are no training images to show",
        ),
        (sets(f"data.input_path={tmp_path}/empty"), "empty: no images found"),
        ([str(pretrain), "--output", "out.gif"], "the preview is a PNG file"),
    ]
    code = (
        "import json, sys; from tfinpaint import preview\n"
        "for case in json.loads(sys.argv[1]):\n"
        "    print(preview.main(['--config', *case]))\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, json.dumps([arguments for arguments, _ in cases])]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split("\n") == [*["2"] * len(cases), "False False", ""], done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(cases)
    for line, (_, message) in zip(lines, cases, strict=True):
        assert line.startswith("error: ")
        assert message in line


def test_under_a_launcher_the_first_rank_alone_draws(capsys, tmp_path, images, monkeypatch):
    path = write(tmp_path, images)
    monkeypatch.setenv("HOROVOD_RANK", "1")
    assert preview.main(["--config", str(path), "--output", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out.png").exists()
