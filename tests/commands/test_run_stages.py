"""The stages of `tfinpaint run` with pretended trainings, but for a stress test: what is done, said and begun again."""

import os
import re
import shlex
import shutil

import pytest
import yaml
from commandline import refuse, succeed, summary, tfinpaint
from photo_project import FEW, PROJECT
from pretended import ACCURACIES

from tfinpaint.cli.options import parse_options
from tfinpaint.project.choice import predicting_run


def test_the_commands_that_init_prints_are_those_that_run_runs(photos_here, pretended):
    """Prepare really, then hand the printed lines of pretrain and classify to the check of their command lines."""
    shown = succeed("init", "my photos")
    typed = [shlex.split(line)[1:] for line in shown.partition("or one after the other:\n")[2].splitlines()]
    assert [words[0] for words in typed] == ["prepare", "pretrain", "classify", "classify", "compare"]
    succeed(*typed[0])
    succeed("run", PROJECT)
    printed = [parse_options(words[0], words[1:]).config for words in typed[1:4]]
    assert [options.config for options in pretended.begun] == printed


def test_run_does_all_stages_and_ends_in_words(photos_here, pretended):
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


def test_the_classifier_from_scratch_has_more_steps_and_nothing_that_holds_it_back(photos_here, pretended):
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


def test_finished_stages_are_not_repeated(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    before = (PROJECT / "data").stat().st_mtime_ns
    again = succeed("run", PROJECT)
    assert len(pretended.begun) == 3
    assert (PROJECT / "data").stat().st_mtime_ns == before
    assert again.count(": done before, in runs/my photos/") == 4
    assert "Pretraining helped: " in again
    assert "--ranks 0: expected 1 or more" in refuse("run", PROJECT, "--ranks", "0")


def test_the_classifier_that_was_right_more_often_is_recommended_and_used(photos_here, pretended, monkeypatch):
    monkeypatch.setitem(ACCURACIES, "from_scratch", 0.95)
    succeed("init", "my photos")
    lines = succeed("run", PROJECT).splitlines()
    place = lines.index("Next:")
    assert lines[place + 1] == "  tfinpaint predict 'runs/my photos/from_scratch' PHOTO    the class of a new photo"
    assert lines[place + 2] == "      from_scratch was right on 38 of 40 test images, classify on 36"
    assert predicting_run(PROJECT) == PROJECT / "from_scratch"
    shutil.rmtree(PROJECT / "from_scratch" / "model_checkpoints")
    assert predicting_run(PROJECT) == PROJECT / "classify"


def test_evaluate_and_export_take_the_better_classifier_of_a_project(photos_here, pretended):
    """The pretended weights are empty, so that each command ends once it has chosen the run and opens them."""
    succeed("init", "my photos")
    commands = (
        ("evaluate", PROJECT, "--data", "my photos"),
        ("export", PROJECT, "--format", "keras", "--output", "exported"),
    )
    for words in commands:
        train = f"classify has no checkpoint yet; train first: tfinpaint run '{PROJECT}'\n"
        assert refuse(*words).endswith(train)
    succeed("run", PROJECT)
    for words in commands:
        done = tfinpaint(*words)
        assert done.stdout.startswith(
            f"{PROJECT}: classify was right on 36 of 40 test images, from_scratch on 20; using classify\n"
        )
        assert f"{PROJECT}/classify/model_checkpoints/model_checkpoint_1" in done.stderr


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
def test_a_stage_that_ends_early_is_the_first_of_the_next_start(photos_here, pretended, ending, code, said):
    succeed("init", "my photos")
    pretended.ending["classify"] = ending
    done = tfinpaint("run", PROJECT)
    printed = done.stderr if code == 2 else done.stdout.partition("learns the classes from the labels\n")[2]
    assert (done.returncode, printed.splitlines()) == (code, said)
    assert "TFINPAINT_CONTINUED_BY" not in os.environ
    succeed("run", PROJECT)
    assert pretended.names == ["pretrain", "classify", "classify", "from_scratch"]
    assert [options.resume for options in pretended.begun] == [False, False, True, False]


def test_ranks_are_handed_on_after_their_number_was_checked(photos_here, pretended):
    succeed("init", "my photos")
    message = refuse("run", PROJECT, "--ranks", "3")
    assert "pretrain.yaml: data.batch_size 64 is the batch over all ranks" in message
    assert pretended.begun == []
    succeed("run", PROJECT, "--ranks", "2")
    assert pretended.ranks == [2, 2, 2]


def test_without_classes_there_is_one_stage(photos_here, pretended):
    shown = succeed("init", "my photos/cat", "album")
    assert "There are no class folders, so there is no classifier" in shown
    assert shown.splitlines()[-1] == "  tfinpaint pretrain --config album/pretrain.yaml"
    shown = succeed("run", "album")
    assert pretended.names == ["pretrain"]
    assert "[1 of 1] Pretrain: " in shown
    assert "tfinpaint features album/pretrain 'my photos/cat' --output features.npz" in shown


def test_a_project_stands_for_its_runs_where_that_is_clear(photos_here, pretended):
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
    none = "error: runs: holds no finished run; expected a readable summary.json"
    assert refuse("compare", "runs") == f"{none}; name projects in it: '{PROJECT}'\n"


def test_a_finished_training_is_not_to_be_started(photos_here, pretended):
    succeed("init", "my photos")
    succeed("run", PROJECT)
    assert succeed("config", "check", PROJECT / "classify.yaml").splitlines()[1:] == [
        "It is finished, in runs/my photos/classify"
    ]


@pytest.mark.stress
def test_both_commands_with_real_trainings(photos_here):
    """From photos to a class for a new photo, with the smallest network and a few steps."""
    succeed("init", "my photos")
    for path in PROJECT.glob("*.yaml"):
        values = yaml.safe_load(path.read_text()) | {"num_epochs": 1, "steps_per_epoch": 2}
        values["model"]["encoder"] = "tiny"
        path.write_text(yaml.safe_dump(values))
    shown = succeed("run", PROJECT)
    assert re.search(r"(helped|made no difference|is unknown): \d+ of \d+ test images \([01]\.\d{3}\)", shown)
    assert summary(PROJECT / "from_scratch")["epochs"] == 3
    assert succeed("run", PROJECT).count(": done before, in ") == 4
    assert "photo" in succeed("predict", PROJECT / "classify", "my photos/cat/000.png")
    (PROJECT / "data" / "training" / "cat" / "000.png").unlink(missing_ok=True)
    (PROJECT / "data" / "testing" / "cat" / "000.png").unlink(missing_ok=True)
    assert "pretrain: began with other images than those in" in refuse("run", PROJECT)
