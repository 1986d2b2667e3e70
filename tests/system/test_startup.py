"""What a user's environment may not change: settings of Keras and Matplotlib, closed streams, missing packages."""

import hashlib
import json
import os
import subprocess
import sys

import keras
import pytest
from conftest import ROOT, outcome, write_images, write_small

from tfinpaint.classify import main as classify
from tfinpaint.errors import UserError
from tfinpaint.system import startup
from tfinpaint.system.diagnosis import ignored_settings

HOSTILE_KERAS = {"floatx": "float16", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}


@pytest.mark.stress
def test_numbers_are_the_same_whatever_the_environment_says(tmp_path):
    """One run in this process, one in a process with hostile settings, no docstrings and no standard streams."""
    for part, seed in (("training", 0), ("testing", 1)):
        write_images(tmp_path / "data" / part, {"käse": 7, "warm": 5}, seed=seed)
    plain, hostile = (write_small(tmp_path / name, tmp_path / "data", num_epochs=1) for name in ("plain", "hostile"))
    assert classify(["--config", str(plain)]) == 0
    home = tmp_path / "home"
    home.mkdir()
    (home / "keras.json").write_text(json.dumps(HOSTILE_KERAS))
    (home / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\nbackend: tkagg\n")
    settings = {
        "KERAS_HOME": str(home),
        "KERAS_BACKEND": "torch",
        "KERAS_NNX_ENABLED": "1",
        "KERAS_MAX_EPOCHS": "x",
        "TF_USE_LEGACY_KERAS": "1",
        "MPLBACKEND": "module://nowhere",
        "MATPLOTLIBRC": str(home / "matplotlibrc"),
        "HOME": "/nonexistent",
        "TMPDIR": "/nonexistent",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii:strict",
        "COLUMNS": "1",
        "TERM": "dumb",
        "NO_COLOR": "1",
    }
    command = f"exec {sys.executable} -OO -m tfinpaint.classify --config {hostile} <&- >&- 2>{tmp_path / 'errors'}"
    done = subprocess.run(["/bin/sh", "-c", command], env=os.environ | settings, cwd=ROOT)
    assert done.returncode == 0, (tmp_path / "errors").read_text()
    assert outcome(tmp_path / "hostile" / "run") == outcome(tmp_path / "plain" / "run")
    curves = [(tmp_path / name / "run" / "figures" / "loss.png").read_bytes() for name in ("plain", "hostile")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"KERAS_BACKEND": "jax", "KERAS_HOME": "/home/me/.keras", "TF_USE_LEGACY_KERAS": "1"},
        {"KERAS_OF_TOMORROW": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1", "KERAS_TORCH_DEVICE": "cuda"},
    ],
)
def test_keras_reads_our_settings_alone(variables):
    environment = {"HOME": "/home/me", **variables}
    assert startup.isolate_keras(environment) == variables
    assert environment == {
        "HOME": "/home/me",
        "KERAS_HOME": str(ROOT / "tfinpaint" / "system" / "keras_home"),
        "KERAS_BACKEND": "tensorflow",
        "TF_USE_LEGACY_KERAS": "0",
    }
    assert startup.isolate_keras(environment) == {}  # as in a child process


def test_our_file_holds_what_keras_is_by_itself():
    values = json.loads(startup.KERAS_FILE.read_text())
    assert values == {
        "floatx": "float32", "epsilon": 1e-7, "backend": "tensorflow", "image_data_format": "channels_last",
    }  # fmt: skip


def test_keras_that_was_imported_before_gets_the_same_settings(monkeypatch):
    keras.config.set_floatx("float16")
    keras.config.set_epsilon(0.1)
    keras.config.set_image_data_format("channels_first")
    startup.settle_imported_keras()
    assert (keras.config.floatx(), keras.config.epsilon()) == ("float32", 1e-7)
    assert keras.config.image_data_format() == "channels_last"
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="with the backend jax; expected: tensorflow"):
        startup.settle_imported_keras()


@pytest.mark.parametrize(
    ("backend", "stays"),
    [
        ("module://json.decoder", True),
        ("module://nowhere.at_all", False),
        ("tkagg", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_a_backend_stays_only_where_its_module_is_installed(backend, stays):
    environment = {"MPLBACKEND": backend}
    removed = startup.drop_backend(environment)
    assert (environment, removed) == (({"MPLBACKEND": backend}, {}) if stays else ({}, {"MPLBACKEND": backend}))
    assert startup.drop_backend({}) == {}


def test_the_doctor_names_what_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "overridden", {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)})
    path = tmp_path / "keras.json"
    variables = ["KERAS_BACKEND=jax", f"KERAS_HOME={tmp_path}"]
    assert list(ignored_settings()) == variables
    path.write_text(json.dumps(HOSTILE_KERAS | {"floatx": "float32"}))
    assert list(ignored_settings())[2:] == [
        f"epsilon: 0.1 in {path}", f"backend: jax in {path}", f"image_data_format: channels_first in {path}",
    ]  # fmt: skip
    for contents in ("{", "[]", "\x00"):
        path.write_text(contents)
        assert list(ignored_settings())[2:] == [f"{path}, which is not a Keras configuration"]


@pytest.mark.parametrize(
    ("arguments", "code", "unneeded"),
    [
        (["--help"], 0, {"pydantic", "yaml", "numpy", "tensorflow"}),
        (["pretrain", "--help"], 0, {"numpy", "PIL", "keras", "tensorflow"}),
        (["classify", "--config", "configs/demo/classify.yaml", "--set", "num_epoch=3"], 2, {"numpy", "tensorflow"}),
    ],
)
def test_what_is_answered_at_once_loads_few_packages(arguments, code, unneeded):
    program = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
        "from tfinpaint.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "tfinpaint.cli.purposes" in loaded
    assert loaded & unneeded == set()


@pytest.mark.parametrize("command", ["tfinpaint", "tfinpaint.doctor", "tfinpaint.pretrain"])
def test_without_its_packages_a_command_says_in_one_line_how_to_get_them(command):
    done = subprocess.run([sys.executable, "-S", "-m", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: numpy, PIL, pydantic, yaml, rich, h5py cannot be imported by ")
    assert "virtual environment" in done.stderr


@pytest.mark.parametrize("program", ["import tfinpaint", "from tfinpaint import classify"])
def test_the_bare_import_of_the_package_without_its_packages_prints_one_line(program):
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: numpy, PIL, pydantic, yaml, rich, h5py cannot be imported by ")
    caught = "try:\n    import tfinpaint\nexcept ImportError:\n    print(1)\nraise KeyError"
    done = subprocess.run([sys.executable, "-S", "-c", caught], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "1\n"
    assert done.stderr.startswith("Traceback")  # other errors look as they always do
    own = "import sys\nsys.excepthook = lambda *_: print('own')\n"
    done = subprocess.run([sys.executable, "-S", "-c", own + caught], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("1\nown\n", "")  # also those that a program shows in its own way


def test_another_python_is_refused_in_one_line(monkeypatch):
    for version in ((3, 10), (3, 14)):
        monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
        expected = f"tfinpaint needs Python 3.11 to 3.13, and {sys.executable} is Python {version[0]}.{version[1]}; "
        assert startup.what_is_missing().startswith(expected)


MAKE_AND_ACTIVATE = "make the virtual environment with scripts/setup, then activate it: source .venv/bin/activate"


def test_the_line_on_missing_packages_fits_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert startup.how_to_install() == "install them: pip install tfinpaint[cpu]"
    assert startup.how_to_get_horovod() == "run scripts/setup of tfinpaint's sources"
    for name in ("scripts/setup", ".venv/bin/activate"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        if name == "scripts/setup":
            assert startup.how_to_install() == MAKE_AND_ACTIVATE
    assert startup.how_to_install() == "activate the virtual environment: source .venv/bin/activate"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))  # it is active, and incomplete
    assert startup.how_to_install() == MAKE_AND_ACTIVATE


def test_another_system_than_linux_is_refused_in_one_line(monkeypatch):
    assert startup.what_is_missing() == ""
    for name, told in (
        ("darwin", "macOS; use Docker (docs/docker.md)"),
        ("win32", "Windows; use WSL 2, or Docker (docs/docker.md)"),
        ("freebsd14", "freebsd14; use Docker (docs/docker.md)"),
    ):
        monkeypatch.setattr(sys, "platform", name)
        assert startup.what_is_missing() == f"tfinpaint runs on Linux, and this is {told}"


def test_the_license_is_named_and_whole():
    """The text is that of https://www.apache.org/licenses/LICENSE-2.0.txt to the byte."""
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
