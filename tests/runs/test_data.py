"""The images of a run: its sample, and what is said where one cannot be read any more."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_images

from tfinpaint.config.schema import Config
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.failures import Failures
from tfinpaint.data.ingest.pack import pack
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.tasks import Task, classification_task, inpainting_task
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.runs.data import DataSet, open_data
from tfinpaint.runs.run import Run


def data_of(images: Images, task: Task, failures: Failures | None = None) -> DataSet:
    return DataSet(images, None, task, 4, 4, 0, failures or Failures())


CONFIG = Config.model_validate({"data": {"transforms": [{"resize": [32, 32]}, {"center": {}}]}})


@pytest.mark.parametrize(
    ("images", "shown"), [(5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4, 5]), (13, [0, 2, 4, 6, 8, 10])]
)
def test_a_sample_is_spread_and_repeats_no_image(tmp_path, images, shown):
    listing = sources.list_images(write_images(tmp_path, {"a": images}))
    task = inpainting_task(CONFIG, separate=False, augment=False)
    opened = Images.open(listing, RankShare(), task.images, preload=True)
    sample = data_of(opened, task).sample(6)["originals"].numpy()
    assert np.array_equal(sample, opened.pixels.numpy()[shown] / np.float32(255))


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_that_breaks_during_a_run_is_told_in_one_line(tmp_path, packed):
    root = write_images(tmp_path / "x", {"a": 8})
    if packed:
        pack(root, root := tmp_path / "r")
    listing = sources.list_images(root)
    task = inpainting_task(CONFIG, separate=False, augment=True)
    data = data_of(Images.open(listing, RankShare(), task.images, preload=False), task)
    assert len(list(data.batches_from(0).take(3))) == 3
    assert len(list(data.evaluation_batches())) == 2
    file = root / ("images-00000-of-00001.tfrecord" if packed else "a/003.png")
    contents = bytearray(file.read_bytes())
    middle = int(listing.records._places[3]["begin"]) + 300 if packed else 300
    contents[middle : middle + 4] = b"evil"
    file.write_bytes(contents)
    place = f"{file} record 3 (a/003.png): " if packed else f"{file}: "
    for use in (
        lambda: list(data.batches_from(0).take(3)),
        lambda: list(data.evaluation_batches()),
    ):
        with pytest.raises(UserError) as caught:
            use()
        assert str(caught.value).startswith(f"{place}became unreadable after the initial check: ")
        assert "\n" not in str(caught.value)
    shown = data.sample(8)["originals"].numpy()  # pictures need not be of this one
    assert np.array_equal(shown[3], shown[4])
    assert not np.array_equal(shown[2], shown[3])


def test_a_share_of_which_nothing_is_left_is_told_in_one_line(tmp_path):
    root = write_images(tmp_path / "x", {"a": 8})
    task = inpainting_task(CONFIG, separate=False, augment=True)
    images = Images.open(sources.list_images(root), RankShare(0, 2), task.images, preload=False)
    data = data_of(images, task, Failures(limit=100))
    for number in range(0, 8, 2):
        (root / "a" / f"{number:03}.png").write_bytes(b"")
    with pytest.raises(
        UserError,
        match=r"/00[0246].png: became unreadable after the initial check: empty: 0 bytes \(bad images: 0 before, 4 now; .*; no readable image is left",
    ):
        list(data.batches_from(0).take(1))


def test_training_gets_the_originals_only_where_its_loss_needs_them(tmp_path):
    listing = sources.list_images(write_images(tmp_path / "x", {"a": 8}))
    for loss, needed in ({}, False), ({"adversarial": {}}, True):
        config = Config.model_validate({**CONFIG.model_dump(exclude_unset=True), "loss": loss})
        task = inpainting_task(config, separate=False, augment=True)
        data = data_of(Images.open(listing, RankShare(), task.images, preload=True), task)
        assert ("originals" in next(iter(data.batches_from(0)))) == needed
        assert "originals" in next(iter(data.evaluation_batches()))


def test_errors_of_other_kinds_are_not_hidden(tmp_path):
    listing = sources.list_images(write_images(tmp_path / "x", {"a": 8}))
    task = inpainting_task(CONFIG, separate=False, augment=True)
    broken = replace(task, prepare=lambda batch: {"x": tf.debugging.assert_less(batch["labels"], 0)} and batch)
    data = data_of(Images.open(listing, RankShare(), task.images, preload=False), broken)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data.evaluation_batches())


def test_a_class_that_loses_all_its_images_is_an_error_and_one_of_a_single_image_is_told(tmp_path, caplog):
    root = write_images(tmp_path / "x", {"a": 3, "b": 2, "c": 1})
    for name in ("000", "001"):
        (root / "b" / f"{name}.png").write_bytes(b"")
    config = Config.model_validate(
        {
            "workdir": tmp_path,
            "data": {"transforms": [{"resize": [8, 8]}], "max_bad_images": 2, "batch_size": 2, "target_type": "labels"},
        }
    )
    run = Run(config, "classifier")
    task = classification_task(config, labels=True, augment=False)
    with pytest.raises(
        UserError, match=r"x: no readable image is left in class b; repair the images or remove the class$"
    ):
        open_data(run, World(), tmp_path, task, sources.list_class_folders(root), training=True)
    write_images(root, {"b": 1})
    caplog.set_level("INFO")
    assert len(open_data(run, World(), tmp_path, task, sources.list_class_folders(root), training=True)) == 5
    assert f"{root}: only one training image in class b, c" in caplog.messages
