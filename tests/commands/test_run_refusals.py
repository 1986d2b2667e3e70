"""Projects that `tfinpaint run` refuses: changed configurations, lost checkpoints, and folders that are no projects."""

import fcntl
import json
import shutil

import yaml
from commandline import refuse, succeed, summary, tfinpaint
from photo_project import PROJECT


def test_a_finished_stage_that_has_lost_its_checkpoints_is_noticed(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    (PROJECT / "classify" / "model_checkpoints" / "model_checkpoint_1" / "model.weights.h5").unlink()
    again = "remove runs/my photos/classify and type `tfinpaint run` to train it again"
    lost = f"model_checkpoint_1: model.weights.h5 is missing; there is no checkpoint before it; bring the file back, or {again}"
    shown = succeed("run", PROJECT)
    assert (
        "  Its results are there, but its weights are lost: runs/my photos/classify/model_checkpoints/" + lost in shown
    )
    assert "tfinpaint predict 'runs/my photos/from_scratch' PHOTO" in shown
    for name in ("classify", "from_scratch"):
        shutil.rmtree(PROJECT / name / "model_checkpoints")
    gone = "runs/my photos/classify: its checkpoints are gone; bring them back, or " + again
    shown = succeed("run", PROJECT)
    assert gone in shown
    assert "tfinpaint predict" not in shown
    assert refuse("predict", PROJECT, "a.jpg") == f"error: {gone}\n"
    shutil.rmtree(PROJECT / "classify")
    shutil.rmtree(PROJECT / "pretrain" / "model_checkpoints")
    assert refuse("run", PROJECT) == (
        "error: Classify begins with the weights of Pretrain, which are lost: runs/my photos/pretrain: its checkpoints "
        "are gone; bring them back, or remove runs/my photos/pretrain and type `tfinpaint run` to train it again\n"
    )
    assert len(pretended.begun) == 3


def test_what_was_changed_after_a_run_is_refused_with_the_folder_to_remove(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    config = PROJECT / "pretrain.yaml"
    before = config.read_text()
    config.write_text(before.replace("learning_rate: 5.0e-4", "learning_rate: 1.0e-3"))
    message = refuse("run", PROJECT)
    assert (
        "pretrain.yaml: optimizer.learning_rate is 0.001, and runs/my photos/pretrain was finished with 0.0005; "
        in message
    )
    assert (
        "set optimizer.learning_rate to 0.0005 in runs/my photos/pretrain.yaml, or remove runs/my photos/pretrain"
        in message
    )
    config.write_text(before)
    results = summary(PROJECT / "pretrain")
    (PROJECT / "pretrain" / "summary.json").write_text(json.dumps(results | {"finished": "2999-01-01T00:00:00+00:00"}))
    message = refuse("run", PROJECT)
    assert (
        "runs/my photos/classify: began with another encoder than that of runs/my photos/pretrain, which w" in message
    )
    assert "was trained again; remove runs/my photos/classify to train it again" in message
    (PROJECT / "pretrain" / "summary.json").unlink()
    assert "which is to be trained again; remove" in refuse("run", PROJECT)  # before it is trained again
    assert len(pretended.begun) == 3


def test_a_mistake_in_the_second_configuration_is_told_before_the_first_run(photos_here, pretended):
    succeed("init", "my photos")
    config = PROJECT / "classify.yaml"
    config.write_text(config.read_text().replace("type: AdamW", "type: AdamX"))
    assert "classify.yaml" in refuse("run", PROJECT)
    config.unlink()
    assert "classify.yaml: is missing; restore it, or make a new project" in refuse("run", PROJECT)
    assert pretended.begun == []


def test_a_changed_configuration_of_a_begun_training_is_told_before_it_continues(photos_here, pretended):
    succeed("init", "my photos")
    pretended.ending["pretrain"] = "failed"
    assert tfinpaint("run", PROJECT).returncode == 2
    (PROJECT / "pretrain" / "model_checkpoints" / "model_checkpoint_1").mkdir(parents=True)
    config = PROJECT / "pretrain.yaml"
    config.write_text(config.read_text().replace("num_epochs: 10", "num_epochs: 2"))
    told = f"error: {config}: num_epochs is 2, and {PROJECT}/pretrain was begun with 10; set num_epochs to 10 in {config}, "
    again = f"or remove {PROJECT}/pretrain to train it again\n"
    resumed = f"tfinpaint pretrain --config '{config}' --resume --allow-change num_epochs"
    assert refuse("run", PROJECT) == f"{told}continue with the new value by `{resumed}`, {again}"
    config.write_text(config.read_text().replace("encoder: resnet18", "encoder: resnet50"))
    assert "continue with" not in refuse("run", PROJECT)  # another network cannot be


def test_all_keys_that_were_changed_after_a_run_are_named_up_to_five(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    config = PROJECT / "pretrain.yaml"
    trained = f"error: {config}: {PROJECT}/pretrain was finished with other values: "
    values = yaml.safe_load(config.read_text())

    def change(**changes) -> str:
        config.write_text(yaml.safe_dump(values | changes))
        return refuse("run", PROJECT)

    epochs, steps = values["num_epochs"], values["steps_per_epoch"]
    assert change(num_epochs=1, steps_per_epoch=2) == (
        f"{trained}num_epochs {epochs} (now 1), steps_per_epoch {steps} (now 2); set num_epochs to {epochs} and "
        f"steps_per_epoch to {steps} in {config}, or remove {PROJECT}/pretrain to train it again\n"
    )
    data = values["data"] | {
        "transforms": [step for step in values["data"]["transforms"] if "color_jitter" not in step]
    }
    assert (
        f"{trained}num_epochs {epochs} (now 1), data.transforms; set num_epochs to {epochs} in {config}, restore the "
        in (change(num_epochs=1, data=data))
    )
    seven = change(
        num_epochs=1, steps_per_epoch=2, seed=3, precision="float32", deterministic=True,
        optimizer=values["optimizer"] | {"weight_decay": 0.5, "learning_rate": 0.25},
    )  # fmt: skip
    assert seven.count("(now ") == 5
    assert ", 2 more keys; set " in seven
    assert ", restore the others, or remove" in seven


def test_a_finished_stage_can_be_continued_with_more_epochs_only(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    config = PROJECT / "classify.yaml"
    before = config.read_text()
    epochs = yaml.safe_load(before)["num_epochs"]
    config.write_text(before.replace(f"num_epochs: {epochs}", f"num_epochs: {epochs + 1}"))
    assert f"--config '{config}' --resume --allow-change num_epochs`, or remove" in refuse("run", PROJECT)
    PROJECT.rename(photos_here / "moved")  # other paths, which the command has to allow too
    assert (
        "--config moved/classify.yaml --resume --allow-change num_epochs --allow-change checkpoints.load --allow-change "
        "data.input_path --allow-change data.test_input_path`, or remove" in refuse("run", "moved")
    )
    (photos_here / "moved").rename(PROJECT)
    config.write_text(before.replace(f"num_epochs: {epochs}", "num_epochs: 1"))
    assert f"set num_epochs to {epochs} in {config}, or remove" in refuse("run", PROJECT)
    config.write_text(before.replace("random_horizontal_flip: 0.5", "random_horizontal_flip: 0.4"))
    assert "restore it, or remove" in refuse("run", PROJECT)  # a list of transforms is too long for a line


def test_a_stage_that_was_trained_longer_by_hand_is_told_with_the_value_for_its_file(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    for name, epochs, wanted in (
        ("pretrain", 12, 12),
        ("from_scratch", 33, 11),
    ):  # from scratch has three times as many
        path = PROJECT / name / "config.resolved.yaml"
        before = path.read_text()
        path.write_text(yaml.safe_dump(yaml.safe_load(before) | {"num_epochs": epochs}))
        file = PROJECT / ("pretrain.yaml" if name == "pretrain" else "classify.yaml")
        assert f"was finished with {epochs}; set num_epochs to {wanted} in {file}, " in refuse("run", PROJECT)
        path.write_text(before)


def test_a_stage_that_is_trained_by_another_process_is_not_begun(photos_here, pretended):
    succeed("init", "my photos")
    (PROJECT / "classify").mkdir()
    with (PROJECT / "classify" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refuse("run", PROJECT) == (
            f"error: {PROJECT}/classify: another process is training there; wait until it has ended, then type: "
            "tfinpaint run 'runs/my photos'\n"
        )
    assert pretended.begun == []


def test_images_that_are_gone_are_told_with_the_file_that_names_them(photos_here):
    succeed("init", "my photos")
    (photos_here / "my photos").rename(photos_here / "moved")
    message = refuse("run", PROJECT)
    assert message.startswith(
        "error: my photos: no such folder or archive, and runs/my photos/project.json names it as "
    )


def test_a_folder_that_init_has_not_made_is_refused(photos_here):
    assert "my photos: holds no project (project.json is missing or damaged); make one" in refuse("run", "my photos")
    assert refuse("run", "nowhere").startswith("error: nowhere: no such folder; make a project of a folder of images")
    succeed("init", "my photos")
    assert refuse("run", "my photos").endswith(
        "; the project of these images is runs/my photos: tfinpaint run 'runs/my photos'\n"
    )
    (PROJECT / "classify" / "figures").mkdir(parents=True)
    for inside in ("classify", "classify/figures"):
        assert refuse("run", PROJECT / inside) == (
            f"error: {PROJECT / inside}: holds no project (project.json is missing or damaged); it lies in the project "
            f"{PROJECT}: tfinpaint run '{PROJECT}'\n"
        )
    shutil.rmtree("my photos")
    assert refuse("run", "my photos").endswith("the project is in runs: tfinpaint run 'runs/my photos'\n")
    assert refuse("run", PROJECT / "pretrain.yaml") == (
        f"error: {PROJECT}/pretrain.yaml: is a file; name the folder that `tfinpaint init` has made, such as {PROJECT}\n"
    )
