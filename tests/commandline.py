"""Run commands in the process of the tests, and read what they wrote."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from tfinpaint import __main__


def tfinpaint(*arguments: str | Path) -> SimpleNamespace:
    """Run a command in this process, which has loaded TensorFlow already; tests/parallel starts processes."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["tfinpaint", *map(str, arguments)])
        try:
            code = __main__.main()
        except SystemExit as end:  # of argparse
            code = end.code
    return SimpleNamespace(returncode=code, stdout=output.getvalue(), stderr=errors.getvalue())


def succeed(*arguments: str | Path) -> str:
    done = tfinpaint(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refuse(*arguments: str | Path) -> str:
    """Return the error lines of a command that must fail cleanly."""
    done = tfinpaint(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(checkpoint: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(checkpoint / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())
