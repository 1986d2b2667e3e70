"""Elastic runs: training continues with the remaining ranks when some are lost, and with those that join.

Horovod's own elastic decorator swallows errors, and its state class does not work with Keras 3. Here the only state
that survives is the newest checkpoint on the disk: when a rank is lost, or hosts have come or gone, every process that
is left asks the launcher for a new rank and executes itself again in its place, to continue as with `--resume`. That
costs the seconds of an import, which a new rank takes too. Within one process Horovod 0.28.1 crashes when it starts a
second time with its cycle time set, and TensorFlow keeps every training step ever traced.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from tfinpaint.checkpoint import find
from tfinpaint.cli import command
from tfinpaint.cli.options import Options
from tfinpaint.config.checks import check_ranks, fitting_ranks
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.failures import loss_to_survive
from tfinpaint.distributed.launch import join_ranks
from tfinpaint.distributed.restart import start_again
from tfinpaint.errors import UserError
from tfinpaint.system.wording import counted

if TYPE_CHECKING:
    from tfinpaint.distributed.world import World

log = logging.getLogger(__name__)

FRUITLESS_RESTARTS = 5  # with no checkpoint written between them, after which a run gives up
HISTORY = "TFINPAINT_ELASTIC_HISTORY"  # environment variable


@dataclass(frozen=True)
class History:
    """The restarts of an elastic run so far; a rank that joins later gets them from the others.

    Attributes:
        restarts: number of times that the ranks have started again.
        fruitless: number of restarts since a checkpoint was written.
        first, newest: newest checkpoint when the run was launched, and when ranks last joined; None for none.
        ranks: number of ranks when they last joined.
        happened: reason of the last restart.
    """

    restarts: int = 0
    fruitless: int = 0
    first: str | None = None
    newest: str | None = None
    ranks: int = 0
    happened: str = ""


def run_elastic(body: Callable[[Options, World], None], options: Options) -> None:
    """Join the ranks and run a command's body; in an elastic run this process starts again as often as needed.

    Args:
        body: called on every rank. What it has done is lost with a rank, except for its checkpoints.

    Raises:
        UserError: the configuration does not suit an elastic run, or starting again does not help.
    """
    settings, folder = options.config.distributed, options.config.workdir
    if not rendezvous.is_elastic():
        body(options, join_ranks(settings, folder))
        return
    check_elastic(options.config)
    environment = dict(os.environ)  # as the launcher made it, before Horovod's settings are added
    history = History(**json.loads(environment.pop(HISTORY, "{}")))
    try:
        world = join_ranks(settings, folder)
        command.log_to_stdout(world.rank)
        history = agree(history, world, options.config)
        body(options_after(history, options), world)
        world.all_gather("done")  # rank 0 is the last: it writes the report
    except rendezvous.DismissedError as end:
        log.warning(str(end))
    except BaseException as error:
        happened = loss_to_survive(error)
        if happened is None:
            raise
        log.warning(f"{happened}; starting again from the newest checkpoint")
        history = replace(history, restarts=history.restarts + 1, happened=happened)
        start_again({**environment, HISTORY: json.dumps(asdict(history))})


def check_elastic(config: Config) -> None:
    """Check that a configuration suits an elastic run with any number of ranks.

    Raises:
        ConfigError: it does not.
    """
    if config.data.input_path and config.checkpoints.save is None:
        raise ConfigError("an elastic run resumes from its checkpoints: set checkpoints.save, the folder for them")
    if config.data.batch_size_per_rank:
        raise ConfigError(
            "an elastic run keeps its batch when the number of ranks changes: set data.batch_size_per_rank: false, and "
            "data.batch_size to the images of all ranks together"
        )


def agree(own: History, world: World, config: Config) -> History:
    """Return the history that all ranks continue with: that of the ranks with the most restarts.

    Raises:
        UserError: the batch cannot be shared by this many ranks, or the run does not make progress.
    """
    newest = world.run_on_rank0(lambda: newest_checkpoint(config))
    past = History(**max(world.all_gather(asdict(own)), key=lambda history: history["restarts"]))
    fits = ", ".join(map(str, fitting_ranks(config)))
    change = counted(world.size, "rank")
    if past.restarts:
        change = f"{counted(past.ranks, 'rank')} {'is' if past.ranks == 1 else 'are'} now {world.size}"
    try:
        check_ranks(config, world.size)
    except ConfigError as error:
        raise UserError(f"{change}: {error}; numbers that fit: {fits}") from None
    if past.restarts == 0:
        log.info(f"Elastic: the batches can be shared by {fits} ranks")
        return History(first=newest, newest=newest, ranks=world.size)
    fruitless = past.fruitless + 1 if newest == past.newest else 0
    if fruitless > FRUITLESS_RESTARTS:
        raise UserError(
            f"started again {fruitless} times without a checkpoint between; the last time: {past.happened}. Look for "
            "the cause, or save more often, then continue with --resume"
        )
    log.info(f"{change}: resuming from {newest.split()[0] if newest else 'the beginning'}")
    return replace(past, fruitless=fruitless, newest=newest, ranks=world.size)


def options_after(history: History, options: Options) -> Options:
    """Return the options with which the body continues its own run, and no earlier one."""
    if history.restarts == 0:
        return options
    if options.resume or history.newest not in (None, history.first):
        return replace(options, resume=True, overwrite=False)
    # Nothing has been saved yet: the folder holds what this run may replace, as was checked when it started.
    return replace(options, overwrite=True)


def newest_checkpoint(config: Config) -> str | None:
    """Return the name and time of the newest checkpoint as text, which changes once one has been written."""
    saved = find.list_checkpoints(config.checkpoints.save) if config.checkpoints.save else []
    if not saved:
        return None
    return f"{saved[-1].name} {saved[-1].stat().st_mtime_ns}"
