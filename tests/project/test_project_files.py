"""The configurations of a project are valid for their commands, and nothing is overwritten."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_images

from tfinpaint.cli.options import load_resolved
from tfinpaint.config.checks import check_command
from tfinpaint.errors import UserError
from tfinpaint.project.files import Project, check_new, read_project, write_project
from tfinpaint.project.settings import choose_settings, estimate_times
from tfinpaint.project.survey import Survey, survey_images
from tfinpaint.system.hardware import Gpu, Machine

LAPTOP = Machine("", "", (), 2, 2, None, 8 * 2**30, None, 0, ())
GPU = replace(LAPTOP, gpus=(Gpu("A", 40_000, 8.0),))


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_images(tmp_path / "photos", {"cat": 20, "dog": 20})


def write(folder: Path, survey: Survey, machine: Machine = LAPTOP) -> Project:
    settings = choose_settings(survey, machine, "gpu" if machine.gpus else "laptop")
    times = estimate_times(settings, survey, machine)
    return write_project(folder, survey, settings, times, skip_empty_classes=False)


@pytest.mark.parametrize("machine", [LAPTOP, GPU])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("images", [40, 4000])
def test_both_configurations_are_valid(photos, tmp_path, machine, grey, images):
    found = survey_images(photos)
    counts = dict.fromkeys(found.classes, (images // 2, 6))
    survey = replace(found, is_grey=grey, classes=counts, images=images)
    write(tmp_path / "p", survey, machine)
    for side in ("training", "testing"):
        (tmp_path / "p" / "data" / side).mkdir(parents=True)
    pretrain, classify = (
        check_command(load_resolved(tmp_path / "p" / f"{task}.yaml", [], task), task, 2)
        for task in ("pretrain", "classify")
    )
    assert pretrain.workdir == tmp_path / "p" / "pretrain" == classify.checkpoints.load
    assert classify.workdir == tmp_path / "p" / "classify"
    assert (pretrain.data.input_path, classify.data.input_path) == (tmp_path / "p" / "data" / "training",) * 2
    assert pretrain.model.encoder == classify.model.encoder
    assert (pretrain.data.views, pretrain.loss.normalize_patches) == (2, pretrain.input_shape[0] // 4)
    assert classify.input_shape == pretrain.input_shape
    assert (classify.model.head_init, classify.optimizer.layer_decay) == ("logistic_regression", 0.7)
    jitters = [
        step.color_jitter for config in (pretrain, classify) for step in config.data.transforms if step.color_jitter
    ]
    assert [bool(jitter.hue) for jitter in jitters] == [not grey] * 2
    assert (pretrain.probe is not None) == (images >= 1000)


def test_images_without_classes_are_read_where_they_are(photos, tmp_path):
    album = photos / "cat"
    (album / "cut.png").write_bytes(b"")
    project = write(tmp_path / "p", survey_images(album))
    assert project == read_project(tmp_path / "p") == Project(str(album), False, 0.0, False)
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["pretrain.yaml", "project.json"]
    config = check_command(load_resolved(tmp_path / "p" / "pretrain.yaml", [], "pretrain"), "pretrain", 1)
    assert (config.data.input_path, config.data.test_input_path, config.data.max_bad_images) == (album, None, 1)


def test_the_command_in_a_configuration_can_be_typed(photos, tmp_path):
    write(tmp_path / "my p", survey_images(photos))
    for task in ("pretrain", "classify"):
        text = (tmp_path / "my p" / f"{task}.yaml").read_text()
        assert f"#   tfinpaint {task} --config '{tmp_path}/my p/{task}.yaml'\n" in text


def test_a_path_that_looks_like_a_value_with_a_comment_stays_as_it_is(photos, tmp_path):
    write(tmp_path / "p", replace(survey_images(photos / "cat"), source=Path("/a # b")))
    assert load_resolved(tmp_path / "p" / "pretrain.yaml", [], "pretrain").data.input_path == Path("/a # b")


def test_comments_stand_in_one_column_and_values_are_commented_plainly(photos, tmp_path):
    write(tmp_path / "p", survey_images(photos))
    lines = (tmp_path / "p" / "pretrain.yaml").read_text().splitlines()
    behind = [line.index(" # ") for line in lines if " # " in line.lstrip("# ")]
    assert len(behind) >= 5
    assert behind.count(min(behind)) >= len(behind) - 3  # a long value pushes its comment to the right
    assert max(map(len, lines)) <= 120


def test_nothing_is_overwritten(photos, tmp_path):
    folder = tmp_path / "p"
    with pytest.raises(UserError, match=r"lies inside .*photos, among the images; name a folder elsewhere"):
        check_new(photos / "runs" / "p", photos)
    check_new(folder, photos)
    write(folder, survey_images(photos))
    with pytest.raises(
        UserError,
        match=r"holds a project already; continue it with: tfinpaint run .*/p, or give the new one another name: tfinpaint init .*/photos FOLDER",
    ):
        check_new(folder, photos)
    (folder / "project.json").unlink()
    with pytest.raises(UserError, match="already exists; name another folder after the images, or remove it"):
        check_new(folder, photos)


def test_a_place_that_cannot_be_written_is_refused_before_the_images_are_read(photos, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/p: cannot be written: there is no folder .*file; name another folder"):
        check_new(tmp_path / "file" / "p", photos)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=f"new/p: cannot be written: no permission to write into {tmp_path}; name"):
        check_new(tmp_path / "new" / "p", photos)


def test_a_full_disk_leaves_nothing_of_a_project(photos, tmp_path, monkeypatch):
    def fail(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("tfinpaint.project.files.write_json", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"runs/p: cannot be written: No space left on device; free some space$"):
        write(tmp_path / "runs" / "p", survey_images(photos))
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: cannot be written"):
        write(tmp_path / "empty", survey_images(photos))
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("damage", [None, "", "[]", '{"images": 1}'])
def test_a_folder_without_a_project_is_refused(tmp_path, damage):
    if damage is not None:
        (tmp_path / "project.json").write_text(damage)
    with pytest.raises(UserError, match=r"holds no project \(project.json is missing or damaged\)"):
        read_project(tmp_path)


def test_the_note_is_json_that_a_user_can_read(photos, tmp_path):
    write(tmp_path / "p", survey_images(photos))
    assert json.loads((tmp_path / "p" / "project.json").read_text()) == {
        "images": str(photos), "has_classes": True, "test_fraction": 0.3, "skip_empty_classes": False,
        "classes": ["cat", "dog"],
    }  # fmt: skip
