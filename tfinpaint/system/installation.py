"""Find which TensorFlow, Horovod and MPI are installed, and whether they can be imported, without importing them."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path

from tfinpaint.system.startup import ROOT
from tfinpaint.system.subprocesses import failure_reason, find_program, run_bounded
from tfinpaint.version import __version__

IMPORT_SECONDS = 120
QUESTION_SECONDS = 20

# Runs in a process of its own: a broken library may end the process that loads it, and importing takes seconds.
_IMPORTS = """
import json
found = {}
try:
    import tensorflow
    found["gpus"] = len(tensorflow.config.list_physical_devices("GPU"))
    import horovod.tensorflow as hvd
    found["parts"] = {"MPI": bool(hvd.mpi_built()), "Gloo": bool(hvd.gloo_built()), "NCCL": bool(hvd.nccl_built())}
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Imported:
    """The result of importing TensorFlow, and Horovod after it.

    Attributes:
        gpus: how many GPUs TensorFlow sees; None if it cannot be imported.
        parts: whether Horovod was built with `MPI`, `Gloo`, `NCCL`; empty if it cannot be imported.
        error: message of the import that failed.
    """

    gpus: int | None = None
    parts: Mapping[str, bool] = field(default_factory=dict)
    error: str = ""


def version(*packages: str) -> str | None:
    """Return the version of the first of these packages that is installed, and its name unless it is the first one."""
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package) + (f" ({package})" if package != packages[0] else "")
    return None


def revision(root: Path = ROOT) -> str | None:
    """Return the Git commit of the checkout that this package runs from; "-dirty" follows it where files were changed.

    Args:
        root: folder of the checkout.

    Returns:
        None where `root` is no checkout, as for an installed package, or where Git cannot tell.
    """
    if not (root / ".git").exists():
        return None
    question = ["git", "-C", str(root), "--no-optional-locks", "describe", "--always", "--abbrev=40", "--dirty"]
    with suppress(OSError):
        code, output = run_bounded([*question, "--exclude=*"], QUESTION_SECONDS)
        return output.strip() if code == 0 else None
    return None


def versions() -> dict[str, str | None]:
    """Return the versions of this package and of those that decide its numbers, and the revision; None for missing."""
    return {
        "tfinpaint": __version__,
        "revision": revision(),
        "Python": platform.python_version(),
        "TensorFlow": version("tensorflow", "tensorflow-cpu"),
        "Keras": version("keras"),
        "Horovod": version("horovod"),
    }


def imported() -> Imported:
    """Import TensorFlow and Horovod in a process of their own."""
    code, output = run_bounded([sys.executable, "-c", _IMPORTS], IMPORT_SECONDS)
    if code is None:
        return Imported(error=f"it takes longer than {IMPORT_SECONDS} s; is the machine overloaded?")
    try:
        return Imported(**json.loads(output.strip().splitlines()[-1]))
    except (IndexError, TypeError, ValueError):  # the process ended before it could report
        return Imported(error=failure_reason(output))


def mpirun() -> str | None:
    """Return the version and the path of the mpirun that would be used, or None if there is none."""
    path = find_program("mpirun")
    if not path:
        return None
    try:
        output = run_bounded([path, "--version"], QUESTION_SECONDS)[1]
    except OSError as error:
        output = str(error)
    return f"{failure_reason(output)}, {path}"


def mpi_of_horovod() -> str | None:
    """Return the MPI library that Horovod is linked to, as the dynamic linker finds it, or None if that is unknown."""
    package = util.find_spec("horovod")
    for folder in (package and package.submodule_search_locations) or []:
        for library in Path(folder, "tensorflow").glob("mpi_lib*.so"):
            with suppress(OSError):
                return linked_mpi(run_bounded(["ldd", str(library)], QUESTION_SECONDS)[1])
    return None


def linked_mpi(listing: str) -> str | None:
    """Return the path of libmpi in the output of `ldd`, "not found" if it is missing, or None if it is not listed."""
    found = re.search(r"libmpi\.so\S* => (not found|\S+)", listing)
    return os.path.normpath(found[1]) if found else None
