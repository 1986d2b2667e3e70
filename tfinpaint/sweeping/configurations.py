"""The configurations of a sweep's runs of `classify`: trainings that leave the test images alone, and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfinpaint.config.checks import check_command
from tfinpaint.config.diff import as_values
from tfinpaint.config.schema import Config
from tfinpaint.layout import BEST, CHECKPOINTS
from tfinpaint.sweeping.plan import SCRATCH_STEPS, Cell, Method, Plan, Setting
from tfinpaint.sweeping.times import MEASURED_STEPS

PREDICTIONS = "predictions"  # in the folder of a test
# What of the optimizer is kept from scratch; the type is AdamW, with rates and decays of the grid.
_KEPT_FROM_SCRATCH = ("clip_norm", "ema_decay", "lr_scheduler")


def training_config(plan: Plan, cell: Cell, method: Method, setting: Setting, run: Path) -> Config:
    """Return the configuration of a training on labelled images alone.

    Both methods have the same epochs, so that schedules and patience, which count epochs, are stretched from scratch
    as the steps are. A batch is never larger than the images.

    Args:
        method: "fine_tuned" or "from_scratch".
        run: its run folder.
    """
    values, scratch = as_values(plan.config), method == "from_scratch"
    batch = min(plan.config.data.batch_size, cell.trained)
    values |= {
        "workdir": str(run), "outfile": None, "seed": cell.seed, "num_epochs": plan.epochs,
        "steps_per_epoch": plan.steps * (SCRATCH_STEPS if scratch else 1), "figures_interval": plan.epochs,
        "accumulate_steps": plan.config.accumulate_steps if batch == plan.config.data.batch_size else 1,
    }  # fmt: skip
    values["data"] |= {
        "label_fraction": cell.share, "batch_size": batch,
        "test_input_path": None, "testing_tag": None, "test_output_path": None,
    }  # fmt: skip
    values["checkpoints"] |= {
        "save": str(run / CHECKPOINTS), "load": None if scratch else str(plan.weights), "keep": 1,
        "interval": plan.epochs, "interval_steps": None,
    }  # fmt: skip
    rates = {"learning_rate": setting.learning_rate, "weight_decay": setting.weight_decay}
    if scratch:
        values["model"]["head_init"] = "random"  # a head that fits an encoder's features is for a pretrained one
        kept = {name: values["optimizer"][name] for name in _KEPT_FROM_SCRATCH}
        values["optimizer"] = {"type": "AdamW", "decay_kernels_only": True, **kept, **rates}
    else:
        values["optimizer"] |= rates
    return _checked(values)


def test_config(plan: Plan, trained: Config, folder: Path) -> Config:
    """Return the configuration that tests a trained classifier, as of its best epoch, and writes its predictions.

    Args:
        trained: the configuration of the training.
        folder: the run folder of the test.
    """
    values = as_values(trained)
    assert trained.workdir is not None
    data = plan.config.data
    values |= {"workdir": str(folder), "early_stopping": None}
    values["data"] |= {
        "input_path": None, "training_tag": None, "validation_fraction": 0.0,
        "test_input_path": str(data.test_input_path), "testing_tag": data.testing_tag,
        "test_output_path": str(folder / PREDICTIONS),
    }  # fmt: skip
    values["checkpoints"] |= {"save": None, "load": str(trained.workdir / BEST)}
    return _checked(values)


def measured_config(plan: Plan, run: Path) -> Config:
    """Return the configuration of a training that is just long enough to measure its speed."""
    cell = plan.cells[-1]
    values = as_values(training_config(plan, cell, "fine_tuned", plan.grids["fine_tuned"][0], run))
    values |= {"num_epochs": 2, "steps_per_epoch": MEASURED_STEPS, "figures_interval": 2, "early_stopping": None}
    values["data"]["validation_fraction"] = 0.0
    values["checkpoints"]["save"] = None
    return _checked(values)


def _checked(values: dict[str, Any]) -> Config:
    """Return a checked configuration. Raises UserError if it cannot work."""
    return check_command(Config.model_validate(values), "classify", 1)
