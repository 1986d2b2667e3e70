"""Run the commands of the pages, in order, on a few small photos; tests/docs/test_first_hour.py runs those of two pages.

Recipes have one step of the smallest network. Commands start no ranks of their own here. test_command_lines.py lists the
lines that are not run, and why.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commandline import succeed
from pages_text import PAGES, command_lines
from small_project import PROJECT, run_project, write_photos, write_project, write_recipes, write_what_pages_name
from test_command_lines import excuse
from test_first_hour import FEATURES, GETTING_STARTED

pytestmark = pytest.mark.stress

SMALLER = {"num_epochs=20": "num_epochs=2", "num_epochs=5": "num_epochs=1"}


def lines(page: Path) -> list[list[str]]:
    return [words for words in command_lines(page) if words[0] == "tfinpaint" and not excuse(words)]


WITH_LINES = [page for page in PAGES if page not in (GETTING_STARTED, FEATURES) and lines(page)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all that the pages name, made once."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_photos()
        write_project("tiny")
        run_project()
        write_recipes()
        write_what_pages_name()
        yield folder


def write_own_configuration(command: str) -> None:
    """Write my.yaml, which stands for a configuration of the reader's, for this command."""
    values = yaml.safe_load((PROJECT / f"{command}.yaml").read_text())
    values["data"] |= {key: str(PROJECT / values["data"][key]) for key in ("input_path", "test_input_path")}
    del values["optimizer"]["lr_scheduler"]  # a page continues it with more epochs
    values["checkpoints"] = {"load": str(PROJECT / "pretrain")} if command == "classify" else {}
    Path("my.yaml").write_text(yaml.safe_dump({**values, "workdir": "runs/mine" + "_too" * (command == "classify")}))


def run(words: list[str]) -> None:
    """Run a command line without its ranks; a folder that it is to make is removed, a run that it is to start replaced."""
    _, command, *arguments = [SMALLER.get(word, word) for word in words]
    output = Path(arguments.pop()) if ">" in arguments else None
    arguments = [word for word in arguments if word != ">"]
    if "--ranks" in arguments:
        place = arguments.index("--ranks")
        del arguments[place : place + 2]
    arguments = [
        name for word in arguments for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    if "my.yaml" in arguments:
        write_own_configuration(command)
    if command == "prepare" and "--verify" not in arguments:
        shutil.rmtree(arguments[1], ignore_errors=True)
    if command in ("pretrain", "classify") and not {"--resume", "--overwrite"} & set(arguments):
        arguments.append("--overwrite")
    if "--resume" in arguments:  # a copy of the project lies elsewhere
        arguments += ["--allow-change", "data.input_path", "--allow-change", "data.test_input_path"]
    shown = succeed(command, *arguments)
    if output:
        output.write_text(shown)


@pytest.mark.parametrize("page", WITH_LINES, ids=lambda page: page.name)
def test_the_commands_of_a_page(page, workspace, tmp_path, monkeypatch):
    shutil.copytree(workspace, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for words in lines(page):
        run(words)
