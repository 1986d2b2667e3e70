"""Every command on the pages is read by its own parser, its configuration is resolved, and it is run or excused.

tests/docs/test_run_pages.py and test_first_hour.py run them, in the stress tier.
"""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
from pages_text import PAGES, ROOT, command_lines

from tfinpaint.cli.arguments import parse_arguments
from tfinpaint.cli.options import load_resolved
from tfinpaint.config.diff import as_values, has_key
from tfinpaint.config.schema import Config

SPEC = importlib.util.spec_from_file_location("command_reference", ROOT / "scripts" / "command_reference.py")
command_reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(command_reference)

# How a line begins that no test of the pages runs -> why.
EXCUSED = {
    "scripts/setup": "makes the environment that the tests run in",
    "source ": "enters that environment",
    "scripts/test": "runs the tests",
    "scripts/demo": "installs and trains; tests/commands/test_demo.py",
    "docker ": "needs Docker",
    "export USER_ID": "for Docker",
    "apptainer ": "needs Apptainer",
    "pip install ": "needs a network; tests/stress/test_package.py",
    "python3 -m venv": "makes an environment; tests/stress/test_package.py",
    "python examples/keras_fit.py": "tests/stress/test_keras_programs.py",
    "horovodrun ": "needs the launcher; tests/stress/test_keras_programs.py, tests/interface",
    "mpirun ": "the same, under MPI",
    "mkdir ": "makes a folder for Docker",
    "printf ": "writes the hosts of an elastic run; tests/stress/test_elastic.py",
    "scripts/launch/": "needs a launcher; tests/parallel has its commands",
    "sbatch ": "needs Slurm",
    "kubectl ": "needs Kubernetes",
    "tests/stress/two_hosts ": "needs root",
    "python scripts/bench/": "measures for minutes on an idle machine",
    "python scripts/scaling/": "measures, or draws what was measured; tests/scripts",
    "tfinpaint doctor": "tries every launcher; tests/commands/test_doctor.py",
    "tfinpaint canary": "needs a launcher; tests/parallel",
    "tfinpaint init my_photos": "tests/commands/test_init.py",
    "tfinpaint run runs/my_photos": "tests/commands/test_run_stages.py",
    "tfinpaint replay": "needs a run that has failed; tests/commands/test_replay.py",
    "tfinpaint sweep": "takes minutes; tests/commands/test_sweep.py",
    "tfinpaint pretrain --hosts": "needs two hosts; tests/stress/two_hosts",
    "tfinpaint probe resnet50_weights": "needs a file of Keras; tests/commands/test_probe.py",
    "tfinpaint probe runs/my_photos/pretrain --data my_photos --compare": "needs a file of Keras; the same",
    "tfinpaint pretrain --ranks 2 --config config_inpaint": "needs rmldnn's files; tests/stress/test_tutorial_files.py",
    "tfinpaint classify --ranks 2 --config config_inpaint": "needs rmldnn's files; tests/stress/test_tutorial_files.py",
}
LINES = [(page, words) for page in PAGES for words in command_lines(page)]


def excuse(words: list[str]) -> str | None:
    """Return the beginning in `EXCUSED` that a line has."""
    return next((start for start in EXCUSED if " ".join(words).startswith(start.strip())), None)


@cache
def parser_of(command: str, action: str = ""):
    parser = command_reference.parser_of(command)
    return (
        next(each for each in command_reference._actions_of(parser) if each.prog.endswith(action)) if action else parser
    )


def resolve(command: str, parsed) -> Config:
    """Resolve the configuration of a command, or of one of the same kind where the page's file is the reader's own."""
    task = "classify" if command in ("classify", "sweep") else "pretrain"
    own = ROOT / (parsed.config or "")
    path = own if own.is_file() else ROOT / "configs" / "natural_images_32px" / f"{task}.yaml"
    return load_resolved(path, parsed.overrides, task, Path("run"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_parser_and_the_schema_accept_every_line(page):
    for program, *words in command_lines(page):
        if program != "tfinpaint":
            continue
        command, *arguments = words[: words.index(">")] if ">" in words else words
        action = arguments.pop(0) if command == "config" else ""
        parser = parser_of(command, action)
        if "--config" not in {option for each in parser._actions for option in each.option_strings}:
            parser.parse_args(arguments)
            continue
        parsed = parse_arguments(parser, arguments)
        values = as_values(resolve(command, parsed))
        assert all(has_key(values, key) for key in getattr(parsed, "allowed_changes", ()))


def test_every_line_is_run_or_excused():
    unknown = [
        f"{page.name}: {' '.join(words)}" for page, words in LINES if words[0] != "tfinpaint" and not excuse(words)
    ]
    assert unknown == []
    assert set(EXCUSED) - {excuse(words) for _, words in LINES} == set(), "no page has such a line any more"
    named = {name for why in EXCUSED.values() for name in re.findall(r"tests/[\w/]+(?:\.py)?", why)}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_programs_of_this_project_exist():
    programs = {word for _, words in LINES for word in words if word.startswith(("scripts/", "tests/"))}
    assert len(programs) > 15
    assert [program for program in sorted(programs) if not (ROOT / program).exists()] == []
