"""The command demo: its trainings are pretended here; tests/stress/test_package.py and scripts/demo run it for real."""

import re
from pathlib import Path

import pytest
from commandline import refuse, succeed, tfinpaint
from conftest import ROOT

from tfinpaint import demo
from tfinpaint.config.diff import as_values, flat_values
from tfinpaint.config.loader import load_config
from tfinpaint.config.recipes import FOLDER as CONFIGS
from tfinpaint.config.recipes import recipes, write_recipes

RUNS = [Path("runs", "demo", name) for name in ("pretrain", "pretrained")]


@pytest.fixture
def here(tmp_path, monkeypatch, undrawn_figures):
    """The working directory, empty; preparing the digits takes a second, so they are pretended too."""
    monkeypatch.chdir(tmp_path)

    class Prepared:
        def lines(self):
            return ["1618 training images, 179 test images"]

    def prepare(source, dest):
        assert source == Path("digits")
        for part in ("training", "testing"):
            (dest / part).mkdir(parents=True)
        return Prepared()

    monkeypatch.setattr(demo, "prepare", prepare)
    return tmp_path


def test_the_demo_needs_nothing_but_an_empty_folder_and_ends_in_words(here, pretended):
    shown = succeed("demo")
    assert pretended.names == ["pretrain", "pretrained", "from_scratch"]
    assert pretended.ranks == [None, None, None]
    number = len(list((ROOT / "configs").rglob("*.yaml")))
    assert shown.startswith(
        f"Wrote {number} configurations into configs; configs/demo has those of the demo\n\n== Prep"
    )
    assert re.findall(r"^== (\w+ \w+)", shown, re.MULTILINE) == [
        "Preparing scikit", "Pretraining without", "A classifier", "The same", "The result",
    ]  # fmt: skip
    assert "Pretraining helped: 36 of 40 test images (0.900) are classified correctly, against 20 (0.500)" in shown
    assert "\nLook at it:    runs/demo/report.html (open it in a browser: " in shown
    assert Path("runs/demo/report.html").is_file()
    for name, source in recipes().items():
        assert (here / "configs" / name).read_text() == source.read_text() == (ROOT / "configs" / name).read_text()


def test_the_classifier_from_scratch_differs_only_in_its_start_and_learning_rate(here, pretended):
    succeed("demo")
    pretraining, pretrained, scratch = (options.config for options in pretended.begun)
    pretrained, scratch = flat_values(as_values(pretrained)), flat_values(as_values(scratch))
    assert pretrained["checkpoints.load"] == str(pretraining.workdir) == str(here / RUNS[0])
    assert {key for key in pretrained.keys() | scratch.keys() if pretrained.get(key) != scratch.get(key)} == {
        *("workdir", "checkpoints.save", "checkpoints.load", "model.head_init", "optimizer.learning_rate"),
    }


def test_the_configurations_of_the_demo_name_its_run_folders(here, pretended):
    """So that its commands may be typed one by one, as README.md and the files say."""
    succeed("demo")
    typed = [load_config(CONFIGS / "demo" / name).workdir for name in ("pretrain.yaml", "classify.yaml")]
    assert typed == [options.config.workdir for options in pretended.begun[:2]] == [here / run for run in RUNS]


def test_overrides_change_all_trainings_and_ranks_the_pretraining_alone(here, pretended):
    succeed("demo", "--set", "steps_per_epoch=2", "--set", "optimizer.learning_rate=1e-5", "--ranks", 2)
    configs = [options.config for options in pretended.begun]
    assert pretended.ranks == [2, None, None]
    assert [config.steps_per_epoch for config in configs] == [2, 2, 2]
    assert [config.optimizer.learning_rate for config in configs] == [1e-5, 1e-5, 1e-3]


def test_the_same_command_continues_what_was_stopped_or_has_failed(here, pretended):
    pretended.ending = {"pretrained": "interrupted"}
    stopped = tfinpaint("demo")
    assert stopped.returncode == 130
    assert stopped.stdout.splitlines()[-1].startswith("== A classifier")  # the training itself says the rest
    pretended.ending = {"pretrained": "ended by a scheduler"}
    ended = succeed("demo", "--set", "seed=3")
    assert ended.endswith(
        "\nA classifier that starts from the pretrained encoder was ended, as SIGTERM asked; nothing has been saved yet; "
        "start the run again with: tfinpaint demo --set seed=3\n"
    )
    pretended.ending = {"from_scratch": "failed"}
    told = refuse("demo")
    assert told == "error: The same classifier from random weights, with a learning rate chosen for it: failed: the " \
                   "lines above say why; when that is fixed, continue with: tfinpaint demo\n"  # fmt: skip
    shown = succeed("demo")
    assert pretended.names == ["pretrain", *["pretrained"] * 3, *["from_scratch"] * 2]
    assert all(options.resume for options in pretended.begun)
    assert "Wrote" not in shown
    assert re.findall(r"^Done before, in ([^;\n]+)", shown, re.MULTILINE) == [
        *("runs/demo/data", "runs/demo/pretrain", "runs/demo/pretrained"),
    ]


def test_configurations_that_are_there_are_kept(here, pretended):
    changed = Path("configs", "demo", "pretrain.yaml")
    changed.parent.mkdir(parents=True)
    changed.write_text(recipes()["demo/pretrain.yaml"].read_text().replace("num_epochs: 4", "num_epochs: 3"))
    assert changed not in write_recipes()
    succeed("demo")
    assert [options.config.num_epochs for options in pretended.begun] == [3, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ranks", "0"], "--ranks 0: expected 1 or more"),
        (["more"], "more: is one argument too many"),
        (["--set", "num_epoch=1"], "Pretraining without labels: failed: the lines above say why"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(here, monkeypatch, arguments, expected):
    monkeypatch.setattr("tfinpaint.sweeping.processes.training_command", lambda *_: ("false",))
    monkeypatch.setattr(demo, "training_command", lambda *_: ("false",))
    told = refuse("demo", *arguments)
    assert told.startswith(f"error: {expected}")
    assert told.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(here):
    Path("configs").write_text("a file")
    assert refuse("demo").startswith("error: configs")
