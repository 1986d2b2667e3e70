"""The files beside the code that tools of others read."""

import re

import pytest
import yaml
from conftest import ROOT

from tfinpaint import __version__
from tfinpaint.config.recipes import recipes

YAML = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_files_are_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_citation_is_of_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_changelog_has_a_place_for_what_comes_next():
    first, *_ = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == ("Unreleased" if ".dev" in __version__ else __version__)


def test_the_workflow_tests_every_python_that_is_supported():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    pythons = jobs["tests"]["strategy"]["matrix"]["python"]
    oldest, end = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', (ROOT / "setup.py").read_text()).groups()
    assert pythons == [f"3.{minor}" for minor in range(int(oldest), int(end))]


def test_files_that_commands_of_the_workflow_name_exist():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = "\n".join(step["run"] for job in jobs.values() for step in job["steps"] if "run" in step)
    named = set(re.findall(r"\b(?:configs|docs|scripts|tests)/[\w/.]+|requirements[\w-]*\.txt", commands))
    assert len(named) > 6
    made = {f"configs/{name}" for name in recipes()}
    assert [name for name in named - made if not (ROOT / name).exists()] == []
