"""The demo compares like with like, and looks at the runs that it has trained."""

import shlex
from itertools import pairwise

from conftest import ROOT

from tfinpaint.config.diff import as_values, flat_values
from tfinpaint.config.loader import load_config

CONFIGS, RUNS = ROOT / "configs" / "demo", ROOT / "runs" / "demo"


def command(name: str, word: str) -> list[str]:
    """The words of the demo's only command of this name that has this word."""
    lines = (ROOT / "scripts" / "demo").read_text().replace("\\\n", " ").replace("$runs", "runs/demo").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith(f"tfinpaint {name} ")]
    [found] = [words for words in commands if word in words]
    return found


def test_the_classifier_from_scratch_differs_only_in_its_start_and_learning_rate():
    words = command("classify", "runs/demo/from_scratch")
    overrides = [after for word, after in pairwise(words) if word == "--set"]
    pretrained = flat_values(as_values(load_config(CONFIGS / "classify.yaml")))
    scratch = flat_values(as_values(load_config(CONFIGS / "classify.yaml", overrides, RUNS / "from_scratch")))
    assert pretrained["checkpoints.load"] == str(RUNS / "pretrain")
    assert {key for key in pretrained.keys() | scratch.keys() if pretrained.get(key) != scratch.get(key)} == {
        *("workdir", "checkpoints.save", "checkpoints.load", "model.head_init", "optimizer.learning_rate"),
    }


def test_the_runs_that_are_compared_are_those_that_were_trained():
    trained = [load_config(CONFIGS / f"{name}.yaml").workdir for name in ("pretrain", "classify")]
    assert [ROOT / run for run in command("compare", "--report")[-3:]] == [*trained, RUNS / "from_scratch"]
