"""Pretrain and classify from a Python program: the runs of the commands of these names, with a result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfinpaint.checkpoint.find import find_reported, find_weights
from tfinpaint.cli.command import EXIT_INTERRUPTED
from tfinpaint.cli.options import Options, check_loaded, explaining_interrupts
from tfinpaint.config.checks import Command
from tfinpaint.config.loader import load_config, load_values
from tfinpaint.config.schema import Config
from tfinpaint.distributed.environment import launched_size
from tfinpaint.distributed.failures import tell_failure
from tfinpaint.distributed.launch import join_once
from tfinpaint.errors import StoppedError, UserError, first_line
from tfinpaint.interface.process import FilePath, as_path, call_text, one_call
from tfinpaint.interface.results import ClassifyResult, PretrainResult
from tfinpaint.layout import RESOLVED_CONFIG, SUMMARY

if TYPE_CHECKING:
    from tfinpaint.distributed.world import World

Given = FilePath | Mapping[str, Any] | Config


def pretrain(
    config: Given | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_change: Sequence[str] = (),
    verbose: bool = True,
    **keys: Any,
) -> PretrainResult:
    """Pretrain an encoder without labels, as `tfinpaint pretrain` does.

    Args:
        config: a YAML or JSON file, a mapping, or a `Config`; None: `keys` are the whole configuration or, with
            `resume`, are added to that of the run in `workdir`.
        resume: continue the run in the run folder from its newest checkpoint, or start it if there is none.
        overwrite: start again in a run folder that holds a run.
        allow_change: with `resume`: keys of the configuration that may differ from those of the run so far.
        verbose: print progress and what is logged.
        keys: top-level keys of the configuration, such as `workdir="runs/mine"`, `num_epochs=5` or
            `data={"batch_size": 32}`; sections are merged key by key into those of `config`. Relative paths are
            relative to the current directory.

    Returns:
        The figures, paths and model of the run; on several ranks the same on each.

    Raises:
        UserError: configuration, images, weights or run folder cannot be used.
        StoppedError: a signal other than an interrupt has stopped the run, which is saved.
        KeyboardInterrupt: the run was interrupted; the message says what is saved.
    """
    return PretrainResult(**_run("pretrain", config, resume, overwrite, allow_change, verbose, keys))


def classify(
    config: Given | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_change: Sequence[str] = (),
    verbose: bool = True,
    **keys: Any,
) -> ClassifyResult:
    """Train a classifier, from a pretrained encoder (`checkpoints={"load": RUN}`) or from scratch.

    Args, returns and raises as `pretrain`; it is what `tfinpaint classify` does.
    """
    return ClassifyResult(**_run("classify", config, resume, overwrite, allow_change, verbose, keys))


def _run(
    task: Command,
    given: Given | None,
    resume: bool,
    overwrite: bool,
    allow_change: Sequence[str],
    verbose: bool,
    keys: Mapping[str, Any],
) -> dict[str, Any]:
    """Run a task and return what its result is made of, by name."""
    flags = {"config": given, "resume": resume, "overwrite": overwrite, "allow_change": list(allow_change)}
    call = call_text(task, {**{name: value for name, value in flags.items() if value}, **keys})
    with one_call(verbose):
        if resume and overwrite:
            raise UserError("resume and overwrite: give one of them")
        if allow_change and not resume:
            raise UserError("allow_change needs resume=True")
        config = check_loaded(*_load(given, keys, resume), task, launched_size(), resumes=resume)
        options = Options(config, resume, overwrite, tuple(allow_change), task, call=call, quiet=not verbose)
        world = join_once(config.distributed, config.workdir)
        try:
            with explaining_interrupts(options):
                classes = _body(task)(options, world)
                found = _found(config, world)
                return found if classes is None else {**found, "classes": classes}
        except StoppedError as stopped:
            if stopped.exit_code == EXIT_INTERRUPTED:
                raise KeyboardInterrupt(str(stopped)) from None
            raise
        except BaseException as error:
            tell_failure(first_line(error))  # to the other ranks, which would wait for this one
            raise


def _load(given: Given | None, keys: Mapping[str, Any], resume: bool) -> tuple[Config, str]:
    """Return the configuration, and where it comes from, for messages."""
    changes = {key: value for key, value in keys.items() if key != "workdir"}
    workdir = as_path(keys["workdir"]) if keys.get("workdir") is not None else None
    if given is None and resume and workdir is not None and (workdir / RESOLVED_CONFIG).exists():
        given = workdir / RESOLVED_CONFIG
    if isinstance(given, str | os.PathLike):
        path = as_path(given)
        return load_config(path, workdir=workdir, changes=changes), str(path)
    return load_values({} if given is None else given, changes, workdir), "configuration"


def _body(task: Command) -> Callable[[Options, World], tuple[str, ...] | None]:
    """Return the function that every rank runs; it returns the names of the classes of a classifier."""
    if task == "pretrain":
        from tfinpaint.runs.pretraining import run_pretraining

        return run_pretraining
    from tfinpaint.runs.classification import run_classification

    return run_classification


def _found(config: Config, world: World) -> dict[str, Any]:
    """Return what a finished run has left in its folder; every rank calls this, when rank 0 has written it."""
    from tfinpaint.report.metrics_log import read_metrics

    folder = config.workdir
    assert folder is not None

    def read() -> dict[str, Any]:
        checkpoint = _checkpoint(config, folder)
        return {
            "metrics": json.loads((folder / SUMMARY).read_text("utf-8")),
            "history": read_metrics(folder),
            "checkpoint": str(checkpoint) if checkpoint else None,
        }

    found = world.run_on_rank0(read)
    checkpoint = Path(found["checkpoint"]) if found["checkpoint"] else None
    return {**found, "checkpoint": checkpoint, "folder": folder, "config": config}


def _checkpoint(config: Config, folder: Path) -> Path | None:
    """Return the checkpoint of the model that a run has trained or evaluated; None where none was saved."""
    if config.data.input_path is None:
        return find_weights(config.checkpoints.load).path if config.checkpoints.load else None
    return find_reported(folder).path if config.checkpoints.save else None
