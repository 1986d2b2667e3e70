"""What `tfinpaint config` prints of keys and files, without TensorFlow, and the help of every command."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from commandline import refuse, succeed
from conftest import ROOT, write_config, write_images, write_training_and_testing

from tfinpaint.cli.purposes import EXAMPLES, PURPOSES
from tfinpaint.config.keys import list_keys, matching_keys
from tfinpaint.config.loader import load_config


@pytest.fixture
def pretraining(tmp_path):
    return write_config(tmp_path / "pretrain.yaml", "pretrain", write_training_and_testing(tmp_path))


def test_keys_have_values_defaults_and_descriptions():
    (size,) = matching_keys("data.batch_size_per_RANK")
    assert (size.values, size.default) == ("true, false", "false")
    assert [key.name for key in matching_keys("early_stopping")] == ["early_stopping", "early_stopping.patience"]
    assert [key.name for key in matching_keys("*.seed*")] == []
    assert {key.name for key in matching_keys("transforms[].resize")} == {"data.transforms[].resize"}
    lines = succeed("config", "keys", "num_epochs").splitlines()
    assert lines[:2] == [
        "num_epochs: integer; default: 1",
        "  Epochs of the whole run, including those before a resume.",
    ]
    required = succeed("config", "keys", "lr_scheduler.type").splitlines()[0]
    assert required == "optimizer.lr_scheduler.type: Step, MultiStep, Exponential, Warmup, Cosine; required"
    everything = succeed("config", "keys").splitlines()
    assert all(any(line.startswith(f"{key.name}: ") for line in everything) for key in list_keys())
    assert refuse("config", "keys", "lrate").endswith("did you mean optimizer.learning_rate?\n")
    assert refuse("config", "keys", "qqq").endswith("`tfinpaint config keys` lists all keys\n")


def test_a_file_is_checked_as_its_command_checks_it(pretraining):
    assert succeed("config", "check", pretraining) == (
        f"{pretraining}: no error was found, for pretrain on 1 rank; images and weights are read when it starts\n"
        f"Start it with: tfinpaint pretrain --config {pretraining}\n"
    )
    on_two = succeed("config", "check", pretraining, "--ranks", "2")
    assert on_two.splitlines()[1] == f"Start it with: tfinpaint pretrain --ranks 2 --config {pretraining}"
    for wrong in ("data.batchsize=3", "data.input_path=nowhere", "checkpoints.load=nowhere"):
        found = refuse("config", "check", pretraining, "--set", wrong)
        assert found == refuse("pretrain", "--config", pretraining, "--set", wrong)
        assert len(found.splitlines()) == 1
    for_two = refuse("config", "check", pretraining, "--set", "data.batch_size=7", "--ranks", "2")
    assert "data.batch_size 7 is the batch over all ranks" in for_two
    assert "this configuration is for pretrain" in refuse("config", "check", pretraining, "--for", "classify")
    assert refuse("config", "check").startswith("error: FILE is missing, such as `tfinpaint config check configs/")
    assert "did you mean check?" in refuse("config", "chek", pretraining)


def test_a_file_of_a_new_project_is_right_and_what_must_exist_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", {"cat": 20, "dog": 20})
    succeed("init", "photos", "runs/pets")
    prepare, pretrain = (
        "  tfinpaint prepare photos runs/pets/data --test-fraction 0.3",
        "  tfinpaint pretrain --config runs/pets/pretrain.yaml",
    )
    start = ["Then start it with:", pretrain, "Or run all stages with:", "  tfinpaint run runs/pets"]
    assert succeed("config", "check", "runs/pets/pretrain.yaml").splitlines()[1:] == [
        "Before it can start, there must be runs/pets/data. Make this first:", prepare, *start,
    ]  # fmt: skip
    lines = succeed("config", "check", "runs/pets/classify.yaml", "--ranks", "2").splitlines()
    assert lines[0].startswith("runs/pets/classify.yaml: no error was found, for classify on 2 ranks; ")
    assert lines[1:5] == [
        "Before it can start, there must be runs/pets/data and runs/pets/pretrain. Make these first, in this order:", prepare, pretrain,
        "Then start it with:",
    ]  # fmt: skip
    assert lines[-1] == "  tfinpaint run --ranks 2 runs/pets"
    for wrong in ("data.input_path=nowhere", "checkpoints.load=nowhere", "data.batch_size=0"):
        assert wrong.partition("=")[0] in refuse("config", "check", "runs/pets/classify.yaml", "--set", wrong)
    assert refuse("pretrain", "--config", "runs/pets/pretrain.yaml").endswith(
        "no such folder: runs/pets/data/training; name a folder of images, or make this one with `tfinpaint run runs/pets`\n"
    )
    succeed(*prepare.split()[1:])
    ready = succeed("config", "check", "runs/pets/pretrain.yaml").splitlines()
    assert ready[1:] == ["Start it with: tfinpaint pretrain --config runs/pets/pretrain.yaml"]
    left = succeed("config", "check", "runs/pets/classify.yaml").splitlines()
    assert left[1] == "Before it can start, there must be runs/pets/pretrain. Make this first:"


def test_a_classifier_that_a_project_without_classes_does_not_train_is_a_file_like_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "album", {"": 24})
    succeed("init", "album", "runs/album")
    data = write_training_and_testing(tmp_path)
    own = write_config(tmp_path / "runs" / "album" / "classify.yaml", "classify", data)
    wanted = ("config", "check", "runs/album/classify.yaml", "--set", "checkpoints.load=runs/album/pretrain")
    assert refuse(*wanted) == refuse("classify", "--config", own, *wanted[-2:])
    assert succeed(*wanted[:-2]).splitlines()[1:] == [
        "Start it with: tfinpaint classify --config runs/album/classify.yaml"
    ]


def test_the_whole_configuration_is_printed_and_reads_back_equal(pretraining, tmp_path):
    printed = succeed("config", "print", pretraining, "--set", "num_epochs=9")
    head, values = printed.split("\n", 1)[0], yaml.safe_load(printed)
    assert head.startswith("# ")
    assert head.endswith("pretrain.yaml as pretrain reads it, with all defaults and absolute paths")
    assert (values["num_epochs"], values["data"]["test_batch_size"], values["checkpoints"]["keep"]) == (9, 4, 2)
    again = tmp_path / "again.yaml"
    again.write_text(printed)
    assert load_config(again) == load_config(again, ["num_epochs=9"])
    assert load_config(again).data == load_config(pretraining).data
    task_defaults = yaml.safe_load(succeed("config", "print", pretraining, "--set", "data.type=null"))
    assert (task_defaults["data"]["target_type"], task_defaults["loss"]["function"]) == ("images", "BCE")


def test_config_loads_no_tensorflow():
    program = """
import json, sys
from tfinpaint.config.__main__ import main

demo = "configs/demo/classify.yaml"
codes = [main(arguments) for arguments in (["keys", "seed"], ["print", demo], ["check", demo])]
print(json.dumps([codes, list(sys.modules)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    codes, loaded = json.loads(done.stdout.splitlines()[-1])
    assert codes[:2] == [0, 0]  # the demo need not have made its images
    assert "tfinpaint.config.keys" in loaded, done.stderr
    assert set(loaded) & {"tensorflow", "keras", "horovod"} == set()


@pytest.mark.parametrize(
    "arguments",
    [[], *([command] for command in PURPOSES), *(["config", action] for action in ("keys", "check", "print"))],
)
def test_help_fits_a_terminal_of_80_columns(arguments, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = succeed(*arguments, "--help").splitlines()
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("command", PURPOSES)
def test_every_help_has_an_example_the_next_command_and_readable_names(command):
    assert set(EXAMPLES) == set(PURPOSES)
    shown = succeed(command, "--help")
    example, following = EXAMPLES[command]
    assert f"example:\n  {example}\n\nnext:\n  " in shown
    assert following.split()[0] in shown.partition("next:")[2]
    for option, value in re.findall(r"--([a-z-]+) ([A-Z_]+)\b", shown):
        assert value != option.upper().replace("-", "_"), f"--{option} {value} says its name twice"
