"""Stop runs at a step, in this process, and change what is saved of them."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import succeed
from conftest import write_small

from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.runs.progress import RunProgress
from tfinpaint.storage import atomic


def at_step(step: int, act: Callable[[], object], patches: pytest.MonkeyPatch) -> None:
    """Call something after a step, counted in this process."""
    taken = RunProgress.step
    count = 0

    def counted(self, epoch, read_loss):
        nonlocal count
        taken(self, epoch, read_loss)
        count += 1
        if count == step:
            act()

    patches.setattr(RunProgress, "step", counted)


def stopped_after(step: int, folder: Path, undisturbed: Path, **changes) -> Path:
    """A run that was told to stop two steps before."""
    with pytest.MonkeyPatch.context() as patches:
        at_step(step - 2, lambda: os.kill(os.getpid(), signal.SIGTERM), patches)
        output = succeed("classify", "--config", write_small(folder, undisturbed / "data", **changes))
    assert f"after step {(step - 1) % 6 + 1}, as SIGTERM asked" in output
    return folder / "run"


def rewrite_progress(run: Path, *left_out: str) -> None:
    """Let the newest checkpoint be one of an older version, which did not record these."""
    newest = list_checkpoints(run / "model_checkpoints")[-1]
    progress = json.loads((newest / "progress.json").read_text())
    (newest / "progress.json").write_text(json.dumps({k: v for k, v in progress.items() if k not in left_out}))
    (newest / atomic.MANIFEST).unlink()
    atomic._write_manifest(newest)
