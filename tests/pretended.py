"""Trainings that are started as processes and only pretended, for the commands that run several of them."""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

from tfinpaint.cli.options import Options, parse_options
from tfinpaint.config.loader import dump_config
from tfinpaint.report.about import now
from tfinpaint.runs.known_images import describe_images

ACCURACIES = {"classify": 0.9, "pretrained": 0.9, "from_scratch": 0.5}
# How a training is asked to stop while it is being started -> the signal, and the exit code of the training.
STOPPED = {
    "interrupted": (signal.SIGINT, 130),
    "asked by a scheduler": (signal.SIGTERM, 0),
    "ended by a scheduler": (signal.SIGTERM, -signal.SIGTERM),
}


class Pretended:
    """Trainings that check their command line as the real ones do, and write results at once.

    Attributes:
        begun: the options of each training, in order.
        ranks: those that were asked for, of each.
        few: class -> number of its training images, which classifiers report as too few.
        ending: what happens to the training of a name: one of STOPPED, "failed" or "killed"; else it is finished.
    """

    def __init__(self) -> None:
        self.begun: list[Options] = []
        self.ranks: list[int | None] = []
        self.ending: dict[str, str] = {}
        self.few: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """The run folders that were trained in, in order."""
        return [self._run(options).name for options in self.begun]

    def start(self, command, slot, output):
        assert output is None  # it prints on the terminal
        assert command[:3] == (sys.executable, "-m", "tfinpaint")
        task = command[3]
        options = parse_options(task, command[4:])
        run = self._run(options)
        self.begun.append(options)
        self.ranks.append(options.placement and options.placement.ranks)
        ending = self.ending.pop(run.name, "")
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.resolved.yaml").write_text(dump_config(options.config))
        (run / "environment.json").write_text(json.dumps({"images": describe_images(options.config)}))
        if ending in STOPPED:
            number, code = STOPPED[ending]
            os.kill(os.getpid(), number)
            return SimpleNamespace(wait=lambda: code, pid=2**22 + 1)  # no process has this number
        if ending:
            return SimpleNamespace(wait=lambda: {"failed": 2, "killed": -signal.SIGKILL}[ending])
        results = {"finished": now(), "epochs": options.config.num_epochs}
        if task == "classify":
            results |= {
                "test_accuracy": ACCURACIES[run.name], "test_images": 40, "labels": 93, "test_loss": 0.5,
                "few_training_images": self.few,
                "from_scratch": options.config.checkpoints.load is None,
            }  # fmt: skip
        checkpoint = run / "model_checkpoints" / "model_checkpoint_1"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "model.weights.h5").touch()
        (run / "summary.json").write_text(json.dumps(results))
        return SimpleNamespace(wait=lambda: 0)

    @staticmethod
    def _run(options: Options) -> Path:
        assert options.config.workdir is not None
        return options.config.workdir
