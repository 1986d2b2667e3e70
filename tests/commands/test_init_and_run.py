"""The commands init and run on real folders; the runs of `pretrain` and `classify` are pretended, but for a stress test."""

import fcntl
import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from commandline import refuse, succeed, summary, tfinpaint
from conftest import write_images
from pretended import ACCURACIES

from tfinpaint.cli.options import parse_options
from tfinpaint.project.choice import predicting_run
from tfinpaint.system.hardware import Gpu, read_hardware


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, with photos in it: two classes of 65 and one of 3."""
    write_images(tmp_path / "my photos", {"cat": 65, "dog": 65, "rare": 3})
    monkeypatch.chdir(tmp_path)
    return tmp_path


PROJECT = Path("runs") / "my photos"
FEW = "Too few images to learn or to test a class: rare (2 training, 1 testing); add some, or expect nothing of it"


def test_init_says_what_it_found_what_it_wrote_and_what_to_type(here):
    shown = succeed("init", "my photos", "--for", "laptop")
    lines = shown.splitlines()
    assert lines[0].startswith("my photos: 133 images in 3 classes (cat 65, dog 65, rare 3); colour, ")
    assert FEW in lines
    assert any(re.match(r"Settings for a laptop \(this machine: .*\): resnet18, images of ", line) for line in lines)
    (time,) = [line for line in lines if re.match(r"Time: about \d+ min \(pretraining \d+ min, classifier ", line)]
    total, *parts = map(int, re.findall(r"(\d+) min", time))
    assert total == sum(parts)
    assert lines[-8] == "Next, all stages with one command, which continues where it was stopped:"
    assert lines[-7] == "  tfinpaint run 'runs/my photos'"
    assert lines[-5] == "  tfinpaint prepare 'my photos' 'runs/my photos/data' --test-fraction 0.3"
    assert lines[-4] == "  tfinpaint pretrain --config 'runs/my photos/pretrain.yaml'"
    assert sorted(path.name for path in PROJECT.iterdir()) == ["classify.yaml", "pretrain.yaml", "project.json"]
    assert refuse("init", "my photos").startswith("error: runs/my photos: holds a project already; continue it with: ")
    assert "expected laptop or gpu" in refuse("init", "my photos", "--for", "phone")


def test_a_gpu_that_tensorflow_cannot_use_does_not_count(here, monkeypatch):
    machine = replace(read_hardware(), gpus=(Gpu("A", 40_000, 8.0),))
    monkeypatch.setattr("tfinpaint.init.read_hardware", lambda: machine)
    for installed, kind in (("2.21", "laptop"), (None, "GPU")):
        monkeypatch.setattr("tfinpaint.system.installation.version", lambda *_, found=installed: found)
        shown = succeed("init", "my photos", installed or "gpu")
        assert f"Settings for a {kind} (this machine: " in shown
        assert ("TensorFlow is installed without support for it" in shown) == (kind == "laptop")


def test_the_commands_that_init_prints_are_those_that_run_runs(here, pretended):
    """Prepare really, then hand the printed lines of pretrain and classify to the check of their command lines."""
    shown = succeed("init", "my photos")
    typed = [shlex.split(line)[1:] for line in shown.partition("or one after the other:\n")[2].splitlines()]
    assert [words[0] for words in typed] == ["prepare", "pretrain", "classify", "classify", "compare"]
    succeed(*typed[0])
    succeed("run", PROJECT)
    printed = [parse_options(words[0], words[1:]).config for words in typed[1:4]]
    assert [options.config for options in pretended.begun] == printed


def test_run_does_all_stages_and_ends_in_words(here, pretended):
    succeed("init", "my photos")
    shown = succeed("run", PROJECT)
    assert re.findall(r"^\[\d of 5\] [^:]+", shown, re.MULTILINE) == [
        "[1 of 5] Prepare", "[2 of 5] Pretrain", "[3 of 5] Classify", "[4 of 5] From scratch", "[5 of 5] Compare",
    ]  # fmt: skip
    assert pretended.names == ["pretrain", "classify", "from_scratch"]
    assert "Pretraining helped: 36 of 40 test images (0.900) are classified correctly, against 20 (0.500)" in shown
    assert "with 93 labels." in shown
    assert "The 95 % interval of the accuracy is 0.77 to 0.96 with pretraining and 0.35 to 0.65 from scratch." in shown
    assert "This is one seed: each classifier was trained once, the one from scratch with 3 times the steps" in shown
    assert "whose number limits what can be distinguished, are the same" in shown
    assert "sure answer" not in shown
    assert "\n  runs/my photos/comparison.html    all runs side by side" in shown
    assert shown.count(FEW) == 1  # in the table of prepare; the comparison says it at the end
    assert (
        "\n  tfinpaint predict 'runs/my photos/classify' PHOTO    the class of a new photo\n      classify was right on"
        in shown
    )
    assert (PROJECT / "comparison.html").is_file()


def test_the_classifier_from_scratch_has_more_steps_and_nothing_that_holds_it_back(here, pretended):
    succeed("init", "my photos")
    path = PROJECT / "classify.yaml"
    path.write_text(path.read_text().replace("  head: pool", "  head: pool\n  trainable: head_only"))
    succeed("run", PROJECT)
    ours, theirs = (options.config for options in pretended.begun[1:])
    assert (theirs.num_epochs, theirs.steps_per_epoch) == (3 * ours.num_epochs, ours.steps_per_epoch)
    assert (theirs.checkpoints.load, theirs.model.head_init, theirs.model.trainable) == (None, "random", None)
    assert (theirs.optimizer.layer_decay, theirs.optimizer.learning_rate) == (1.0, 1e-3)
    assert theirs.data == ours.data
    assert theirs.optimizer.lr_scheduler == ours.optimizer.lr_scheduler
    assert theirs.loss == ours.loss


def test_finished_stages_are_not_repeated(here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    before = (PROJECT / "data").stat().st_mtime_ns
    again = succeed("run", PROJECT)
    assert len(pretended.begun) == 3
    assert (PROJECT / "data").stat().st_mtime_ns == before
    assert again.count(": done before, in runs/my photos/") == 4
    assert "Pretraining helped: " in again
    assert "--ranks 0: expected 1 or more" in refuse("run", PROJECT, "--ranks", "0")


def test_the_classifier_that_was_right_more_often_is_recommended_and_used(here, pretended, monkeypatch):
    monkeypatch.setitem(ACCURACIES, "from_scratch", 0.95)
    succeed("init", "my photos")
    lines = succeed("run", PROJECT).splitlines()
    place = lines.index("Next:")
    assert lines[place + 1] == "  tfinpaint predict 'runs/my photos/from_scratch' PHOTO    the class of a new photo"
    assert lines[place + 2] == "      from_scratch was right on 38 of 40 test images, classify on 36"
    assert predicting_run(PROJECT) == PROJECT / "from_scratch"
    shutil.rmtree(PROJECT / "from_scratch" / "model_checkpoints")
    assert predicting_run(PROJECT) == PROJECT / "classify"


def test_a_finished_stage_that_has_lost_its_checkpoints_is_noticed(here, pretended):
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


AGAIN = "continue with: tfinpaint run 'runs/my photos'"


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("interrupted", 130, []),  # the training has said it
        ("asked by a scheduler", 0, []),
        (
            "ended by a scheduler", 0,
            ["Classify was ended, as SIGTERM asked; nothing has been saved yet; start the run again with: " + AGAIN[15:]],
        ),
        ("failed", 2, [f"error: Classify: failed: the lines above say why; when that is fixed, {AGAIN}"]),
        (
            "killed", 2,
            [
                "error: Classify: failed: its process was ended by SIGKILL, perhaps because memory did not suffice; "
                f"when that is fixed, {AGAIN}"
            ],
        ),
    ],
)  # fmt: skip
def test_a_stage_that_ends_early_is_the_first_of_the_next_start(here, pretended, ending, code, said):
    succeed("init", "my photos")
    pretended.ending["classify"] = ending
    done = tfinpaint("run", PROJECT)
    printed = done.stderr if code == 2 else done.stdout.partition("learns the classes from the labels\n")[2]
    assert (done.returncode, printed.splitlines()) == (code, said)
    assert "TFINPAINT_CONTINUED_BY" not in os.environ
    succeed("run", PROJECT)
    assert pretended.names == ["pretrain", "classify", "classify", "from_scratch"]
    assert [options.resume for options in pretended.begun] == [False, False, True, False]


def test_what_was_changed_after_a_run_is_refused_with_the_folder_to_remove(here, pretended):
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
    assert "restore it, or remove runs/my photos/pretrain to train it again" in message
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


def test_a_mistake_in_the_second_configuration_is_told_before_the_first_run(here, pretended):
    succeed("init", "my photos")
    config = PROJECT / "classify.yaml"
    config.write_text(config.read_text().replace("type: AdamW", "type: AdamX"))
    assert "classify.yaml" in refuse("run", PROJECT)
    config.unlink()
    assert "classify.yaml: is missing; restore it, or make a new project" in refuse("run", PROJECT)
    assert pretended.begun == []


def test_ranks_are_handed_on_after_their_number_was_checked(here, pretended):
    succeed("init", "my photos")
    message = refuse("run", PROJECT, "--ranks", "3")
    assert "pretrain.yaml: data.batch_size 64 is the batch over all ranks" in message
    assert pretended.begun == []
    succeed("run", PROJECT, "--ranks", "2")
    assert pretended.ranks == [2, 2, 2]


def test_without_classes_there_is_one_stage(here, pretended):
    shown = succeed("init", "my photos/cat", "album")
    assert "There are no class folders, so there is no classifier" in shown
    assert shown.splitlines()[-1] == "  tfinpaint pretrain --config album/pretrain.yaml"
    shown = succeed("run", "album")
    assert pretended.names == ["pretrain"]
    assert "[1 of 1] Pretrain: " in shown
    assert "tfinpaint features album/pretrain 'my photos/cat' --output features.npz" in shown


def test_a_project_stands_for_its_runs_where_that_is_clear(here, pretended):
    succeed("init", "my photos")
    train = "train first: tfinpaint run 'runs/my photos'"
    assert refuse("compare", PROJECT) == f"error: {PROJECT}: no training of this project has begun; {train}\n"
    assert refuse("predict", PROJECT, "a.jpg") == f"error: {PROJECT}: classify has no checkpoint yet; {train}\n"
    told = "it is a project that has not run yet; type: tfinpaint run 'runs/my photos'\n"
    assert refuse("features", PROJECT, "my photos", "--output", "a.npz").endswith(told)
    pretended.ending["from_scratch"] = "failed"
    assert tfinpaint("run", PROJECT).returncode == 2
    done = tfinpaint("compare", PROJECT)
    assert done.returncode == 0, done.stderr
    left = (
        f"{PROJECT}/from_scratch: this run is not finished (summary.json is missing); continue it first; it is left out"
    )
    assert left in done.stdout
    succeed("run", PROJECT)
    assert succeed("compare", PROJECT).count("Pretraining helped: 36 of 40 test images (0.900)") == 1
    name = f"name a run in it: {PROJECT}/classify, {PROJECT}/from_scratch, {PROJECT}/pretrain\n"
    assert refuse("probe", PROJECT, "--data", "my photos").endswith(name)
    assert refuse("compare", "runs").startswith("error: runs: holds no finished run; expected a readable summary.json")


def test_a_changed_configuration_of_a_begun_training_is_told_before_it_continues(here, pretended):
    succeed("init", "my photos")
    pretended.ending["pretrain"] = "failed"
    assert tfinpaint("run", PROJECT).returncode == 2
    (PROJECT / "pretrain" / "model_checkpoints" / "model_checkpoint_1").mkdir(parents=True)
    config = PROJECT / "pretrain.yaml"
    config.write_text(config.read_text().replace("num_epochs: 10", "num_epochs: 2"))
    told = f"error: {config}: num_epochs is 2, and {PROJECT}/pretrain was begun with 10; restore it, "
    again = f"or remove {PROJECT}/pretrain to train it again\n"
    resumed = f"tfinpaint pretrain --config '{config}' --resume --allow-change num_epochs"
    assert refuse("run", PROJECT) == f"{told}continue with the new value by `{resumed}`, {again}"
    config.write_text(config.read_text().replace("encoder: resnet18", "encoder: resnet50"))
    assert "continue with" not in refuse("run", PROJECT)  # another network cannot be


def test_a_finished_stage_can_be_continued_with_more_epochs_only(here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    config = PROJECT / "classify.yaml"
    before = config.read_text()
    epochs = yaml.safe_load(before)["num_epochs"]
    config.write_text(before.replace(f"num_epochs: {epochs}", f"num_epochs: {epochs + 1}"))
    assert f"--config '{config}' --resume --allow-change num_epochs`, or remove" in refuse("run", PROJECT)
    PROJECT.rename(here / "moved")  # other paths, which the command has to allow too
    assert (
        "--config moved/classify.yaml --resume --allow-change num_epochs --allow-change checkpoints.load --allow-change "
        "data.input_path --allow-change data.test_input_path`, or remove" in refuse("run", "moved")
    )
    (here / "moved").rename(PROJECT)
    config.write_text(before.replace(f"num_epochs: {epochs}", "num_epochs: 1"))
    assert "restore it, or remove" in refuse("run", PROJECT)


def test_no_comment_of_a_written_file_repeats_a_value_that_may_be_changed(here):
    succeed("init", "my photos")
    for path in PROJECT.glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        total = values["num_epochs"] * values["steps_per_epoch"]
        assert f"{total:,}" not in path.read_text()


def test_a_stage_that_is_trained_by_another_process_is_not_begun(here, pretended):
    succeed("init", "my photos")
    (PROJECT / "classify").mkdir()
    with (PROJECT / "classify" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refuse("run", PROJECT) == (
            f"error: {PROJECT}/classify: another process is training there; wait until it has ended, then type: "
            "tfinpaint run 'runs/my photos'\n"
        )
    assert pretended.begun == []


def test_images_that_are_gone_are_told_with_the_file_that_names_them(here):
    succeed("init", "my photos")
    (here / "my photos").rename(here / "moved")
    message = refuse("run", PROJECT)
    assert message.startswith(
        "error: my photos: no such folder or archive, and runs/my photos/project.json names it as "
    )


def test_a_finished_training_is_not_to_be_started(here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    assert succeed("config", "check", PROJECT / "classify.yaml").splitlines()[1:] == [
        "It is finished, in runs/my photos/classify"
    ]


def test_folders_of_images_that_init_cannot_use_are_told_what_to_type(here):
    for year in ("2023", "2024"):
        write_images(here / "nested" / year, {"cat": 12, "dog": 12}, seed=int(year))
    assert refuse("init", "nested") == (
        "error: nested: class folders at several places (2023, 2024); name one of them in place of nested, such as "
        "nested/2023\n"
    )
    write_images(here / "one", {"cat": 25})
    (here / "one" / "empty").mkdir()
    assert refuse("init", "one", "--skip-empty-classes") == (
        "error: one: only one class (cat) has a usable image; a classifier needs at least two. Pretraining needs no "
        "classes: tfinpaint init one/cat\n"
    )


def test_a_folder_that_init_has_not_made_is_refused(here):
    assert "my photos: holds no project (project.json is missing or damaged); make one" in refuse("run", "my photos")
    assert refuse("run", "nowhere").startswith("error: nowhere: no such folder; make a project of a folder of images")
    succeed("init", "my photos")
    assert refuse("run", "my photos").endswith(
        "; the project of these images is runs/my photos: tfinpaint run 'runs/my photos'\n"
    )
    shutil.rmtree("my photos")
    assert refuse("run", "my photos").endswith("the project is in runs: tfinpaint run 'runs/my photos'\n")
    assert refuse("run", PROJECT / "pretrain.yaml") == (
        f"error: {PROJECT}/pretrain.yaml: is a file; name the folder that `tfinpaint init` has made, such as {PROJECT}\n"
    )


@pytest.mark.stress
def test_both_commands_with_real_trainings(here):
    """From photos to a class for a new photo, with the smallest network and a few steps."""
    succeed("init", "my photos")
    for path in PROJECT.glob("*.yaml"):
        values = yaml.safe_load(path.read_text()) | {"num_epochs": 1, "steps_per_epoch": 2}
        values["model"]["encoder"] = "tiny"
        path.write_text(yaml.safe_dump(values))
    shown = succeed("run", PROJECT)
    assert re.search(r"(helped|made no difference|is unknown): 0\.\d{3} ", shown)
    assert summary(PROJECT / "from_scratch")["epochs"] == 3
    assert succeed("run", PROJECT).count(": done before, in ") == 4
    assert "photo" in succeed("predict", PROJECT / "classify", "my photos/cat/000.png")
