"""The files that make and start containers agree with each other and with the project, as far as no engine is needed."""

import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

STEPS = ROOT / "containers" / "steps"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEFINITION = (ROOT / "containers" / "tfinpaint.def").read_text()
HOME = "/opt/tfinpaint"


def copied_by_docker():
    """Return the paths of the project that each COPY names, but for those of other stages."""
    copies = [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    return {source for words in copies if not words[0].startswith("--from") for source in words[:-1]}


def copied_by_apptainer():
    """Return (path of the project, path in the image) for each line of %files, but for those of other stages."""
    sections = re.findall(r"^%files\n((?: +.*\n)+)", DEFINITION, re.M)
    return [tuple(line.split()) for section in sections for line in section.splitlines()]


def steps_of(text):
    return re.findall(r"containers/steps ([a-z-]+)", text)


def let_through(path, patterns):
    """Return whether .dockerignore leaves a path in the build: the last pattern that matches it or a parent decides."""
    through = True
    for pattern in patterns:
        names = [str(parent) for parent in [path, *path.parents]]
        if any(fnmatch(name, pattern.removeprefix("!")) for name in names):
            through = pattern.startswith("!")
    return through


def test_what_docker_copies_exists_and_reaches_the_build():
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    copied = copied_by_docker() - {"."}
    assert {"tfinpaint", "requirements.txt", "scripts/setup"} <= copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [source for source in copied if not let_through(Path(source), patterns)] == []
    for kept_out in (".git/config", "runs/demo/data", "photos/cat.jpg", ".venv/bin/pip", "tfinpaint/__pycache__/a.pyc"):
        assert not let_through(Path(kept_out), patterns)


def test_apptainer_copies_what_docker_copies():
    copied = copied_by_apptainer()
    assert {source for source, _ in copied} == copied_by_docker() - {"."}
    assert [target for source, target in copied if target != f"{HOME}/{source}"] == []
    assert f"\nWORKDIR {HOME}\n" in DOCKERFILE


def test_docker_and_apptainer_take_the_same_steps():
    of_docker = steps_of("\n".join(line for line in DOCKERFILE.splitlines() if line.startswith("RUN ")))
    of_apptainer = steps_of("\n".join(re.findall(r"^%(?:post|test)\n((?: +.*\n)+)", DEFINITION, re.M)))
    documented = re.findall(r"^#   containers/steps ([a-z-]+)", STEPS.read_text(), re.M)
    assert of_docker == documented
    assert of_apptainer == [step for step in documented if step != "user"]  # there, everyone is who they are outside


def test_a_step_that_does_not_exist_is_refused():
    for words in ([], ["dependency"]):
        process = subprocess.run([STEPS, *words], capture_output=True, text=True)
        assert process.returncode == 2
        assert process.stderr == f"steps: there is no step '{''.join(words)}'; the head of this file names them.\n"


def test_build_arguments_have_the_same_names_and_defaults():
    of_docker = re.findall(r"^ARG (BASE|EXTRA|HOROVOD_GPU_OPERATIONS)\b=?(.*)$", DOCKERFILE, re.M)
    of_apptainer = re.findall(r"^    (BASE|EXTRA|HOROVOD_GPU_OPERATIONS)=(.*)$", DEFINITION, re.M)
    assert of_apptainer == [*of_docker, of_docker[0]]  # arguments of a stage are unknown in the next
    assert re.findall(r"^From: (.+)$", DEFINITION, re.M) == ["{{ BASE }}", "{{ BASE }}"]


@pytest.fixture(scope="module")
def pretrain():
    """Return the service of compose.yaml, with its variables at their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "compose.yaml").read_text())
    assert "$" not in re.sub(r"#.*", "", text)
    return yaml.safe_load(text)["services"]["pretrain"]


def test_compose_starts_a_command_that_exists_on_a_configuration_of_the_image(pretrain):
    program, command, *options = shlex.split(pretrain["command"])
    assert (program, command) == ("tfinpaint", "pretrain")
    configuration = options[options.index("--config") + 1]
    assert (ROOT / configuration).is_file()
    assert Path(configuration).parts[0] in copied_by_docker()


def test_compose_builds_the_image_and_keeps_what_it_writes(pretrain):
    assert (ROOT / pretrain["build"] / "Dockerfile").is_file()
    assert pretrain["user"] == f"{re.search(r'^ARG UID=([0-9]+)$', DOCKERFILE, re.M)[1]}:1000"
    data, runs = pretrain["volumes"]
    assert (data["target"], data["read_only"]) == ("/data", True)
    assert (runs["source"], runs["target"], runs.get("read_only", False)) == ("./runs", f"{HOME}/runs", False)
