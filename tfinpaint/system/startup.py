"""Prepare a process before anything else is imported. The package calls `prepare_process` when it is imported.

Therefore every process has the same settings, whatever it runs: a rank, a child process, a test.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from types import TracebackType

from tfinpaint.errors import UserError
from tfinpaint.system.paths import typed_path

ROOT = Path(__file__).parents[2]
KERAS_FILE = Path(__file__).parent / "keras_home" / "keras.json"

# Variables that Keras reads when it is imported. KERAS_HOME holds a keras.json of ours, instead of the user's ~/.keras.
_KERAS = {
    "KERAS_HOME": str(KERAS_FILE.parent),
    "KERAS_BACKEND": "tensorflow",
    "TF_USE_LEGACY_KERAS": "0",  # Horovod asks TensorFlow for a Keras when it is imported
}
# TensorFlow turns oneDNN's kernels on by itself only on the newest processors; on others its own kernels take up to
# five times as long for the same training step (ResNet50 and decoder, 32 px, AVX2).
DEFAULTS = {"TF_ENABLE_ONEDNN_OPTS": "1"}

# The modules of the packages that all commands import. The doctor reports which of the other packages are missing.
_NEEDED = ("numpy", "PIL", "pydantic", "yaml", "rich", "h5py")

_PYTHONS = (3, 11), (3, 13)  # the oldest and the newest version that can be used
_SYSTEMS = {"darwin": "macOS; use Docker (docs/docker.md)", "win32": "Windows; use WSL 2, or Docker (docs/docker.md)"}

overridden: dict[str, str] = {}  # the user's variables that this process ignores, and their values


class CannotRunError(ImportError):
    """The package cannot be used here: the system, Python or other packages are not those that it needs."""


def prepare_process() -> None:
    """Open the standard streams, set what TensorFlow, Keras and Matplotlib read, and check that packages are installed.

    Raises:
        SystemExit: something is missing and a command was started; it prints one line.
        CannotRunError: something is missing and the package is used as a library. If nobody catches it, Python prints
            one line in place of a traceback.
    """
    open_standard_streams()
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    overridden.update(isolate_keras(os.environ) | drop_backend(os.environ))
    if not (problem := what_is_missing()):
        return
    if sys.argv and Path(sys.argv[0]).name in ("-m", "tfinpaint"):  # -m until Python has found the module to run
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    before = sys.excepthook

    def print_in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, CannotRunError):
            print(f"error: {error}", file=sys.stderr)
        else:
            before(kind, error, trace)

    sys.excepthook = print_in_one_line
    raise CannotRunError(problem)


def what_is_missing() -> str:
    """Return why no command can run here and what to do, or "" if commands can run."""
    if sys.platform != "linux":
        system = _SYSTEMS.get(sys.platform, f"{sys.platform}; use Docker (docs/docker.md)")
        return f"tfinpaint runs on Linux, and this is {system}"
    oldest, newest = _PYTHONS
    if not oldest <= sys.version_info[:2] <= newest:
        expected = f"Python {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
        found = f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
        return f"tfinpaint needs {expected}, and {found}; {how_to_install()}"
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} cannot be imported by {sys.executable}; {how_to_install()}" if missing else ""


def open_standard_streams() -> None:
    """Open /dev/null for each standard stream that this process was started without.

    Otherwise the next file that is opened, a checkpoint for example, takes the stream's number, and every library that
    prints would write into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 -- open until the process ends


def isolate_keras(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Set what Keras reads, since the user's variables and keras.json could change numbers or keep Keras from starting.

    Args:
        environment: variables; changed in place.

    Returns:
        The variables that the user had set to other values, and these values.
    """
    before = {name: value for name, value in environment.items() if name.startswith("KERAS_") or name in _KERAS}
    for name in before:
        del environment[name]
    environment.update(_KERAS)
    return {name: value for name, value in before.items() if value != _KERAS.get(name)}


def drop_backend(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Remove MPLBACKEND, which no figure here needs, unless it names an installed module, such as that of a notebook.

    With an unknown backend neither Matplotlib nor Keras can be imported.

    Args:
        environment: variables; changed in place.

    Returns:
        The variable that was removed, and its value.
    """
    name = environment.get("MPLBACKEND")
    if name is None:
        return {}
    with contextlib.suppress(ImportError, ValueError):
        if name.startswith("module://") and importlib.util.find_spec(name.removeprefix("module://")):
            return {}
    return {"MPLBACKEND": environment.pop("MPLBACKEND")}


def user_keras_file() -> Path:
    """Return the path of the keras.json that Keras would have read without `isolate_keras`."""
    return Path(overridden.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"


def settle_imported_keras() -> None:
    """Give a Keras that was imported before this package the same settings.

    Raises:
        UserError: Keras runs on another backend than TensorFlow.
    """
    check_imported_keras()
    keras = sys.modules.get("keras")
    if keras is None:
        return
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")


def check_imported_keras() -> None:
    """Check that a Keras that was imported before this package runs on TensorFlow.

    Raises:
        UserError: it runs on another backend.
    """
    keras = sys.modules.get("keras")
    if keras is not None and keras.config.backend() != "tensorflow":
        raise UserError(
            f"Keras was imported before tfinpaint, with the backend {keras.config.backend()}; expected: tensorflow; "
            "import tfinpaint first, or set KERAS_BACKEND=tensorflow"
        )


def how_to_install() -> str:
    """Return how to make the packages importable, as the end of a message."""
    activate, setup = ROOT / ".venv" / "bin" / "activate", ROOT / "scripts" / "setup"
    if activate.exists() and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        return f"activate the virtual environment: source {typed_path(activate)}"
    if setup.exists():
        activate_it = f"source {typed_path(activate)}"
        return f"make the virtual environment with {typed_path(setup)}, then activate it: {activate_it}"
    return f"install them: {install_command('cpu')}"


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra, for a checkout or for an installed package."""
    return f"pip install {'-e .' if (ROOT / 'setup.py').exists() else 'tfinpaint'}[{extra}]"


def how_to_reinstall() -> str:
    """Return how to install everything again."""
    setup = (ROOT / "scripts" / "setup").exists()
    return "rm -r .venv, then scripts/setup" if setup else "make a new virtual environment, and install tfinpaint there"


def how_to_get_horovod() -> str:
    """Return how to get Horovod, as a part of a message."""
    return "run scripts/setup" if (ROOT / "scripts" / "setup").exists() else "run scripts/setup of tfinpaint's sources"
