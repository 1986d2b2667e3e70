"""Join the ranks from anybody's program, and end the program on every rank if it fails on one."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from tfinpaint.config.sections import Distributed
from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.environment import launched_rank, launched_size
from tfinpaint.distributed.failures import end_rank, failure_elsewhere, loss_to_survive, tell_failure
from tfinpaint.distributed.heartbeat import EXIT_PEER_FAILED, stopping_message
from tfinpaint.distributed.launch import join_ranks, leave_ranks
from tfinpaint.distributed.restart import start_again
from tfinpaint.errors import UserError

if TYPE_CHECKING:
    from tfinpaint.distributed.world import World

log = logging.getLogger(__name__)


def join(*, heartbeat_timeout_s: float = 30.0, stall_timeout_s: int = 300) -> World:
    """Join the ranks that a launcher (horovodrun, mpirun, srun) has started; call it once, before TensorFlow runs.

    Each rank takes its share of the host's cores, or the GPU of its number on the host. From then on an exception that
    nobody catches ends all ranks with its message, and a rank that dies or hangs ends the others, which name it; in an
    elastic run (`horovodrun --gloo --host-discovery-script`) the remaining ranks execute the program again. When
    the program ends, a rank waits for the others. A single process without a launcher is left as it is.

    Args:
        heartbeat_timeout_s: seconds without a sign of life after which a rank counts as lost.
        stall_timeout_s: seconds for which a rank may keep all others waiting, for example while it saves a model.

    Returns:
        The ranks: number of this rank and of all ranks, and the collectives over them.

    Raises:
        UserError: Horovod cannot be imported or does not join all ranks, TensorFlow has run already, or Keras runs on
            another backend.
    """
    if launched_size() == 1 and not rendezvous.is_elastic():
        from tfinpaint.distributed.world import World

        return World()
    _end_all_ranks_on_failure(dict(os.environ))  # as the launcher made it, before Horovod's settings are added
    settings = Distributed(heartbeat_timeout_s=heartbeat_timeout_s, stall_timeout_s=stall_timeout_s)
    try:
        world = join_ranks(settings, as_library=True)
    except rendezvous.DismissedError as end:
        log.warning(str(end))
        sys.exit(0)
    atexit.register(leave_ranks)
    return world


def _end_all_ranks_on_failure(environment: Mapping[str, str]) -> None:
    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if rendezvous.is_elastic() and (happened := loss_to_survive(error)):
            print(f"rank {launched_rank()}: {happened}; starting again", file=sys.stderr, flush=True)
            try:
                start_again(environment)
            except UserError as unanswered:
                end_rank(2, f"error: {unanswered}")
            os._exit(0)  # the run continues without this process
        end_rank(*_explain(error))

    sys.excepthook = end


def _explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the message of an error, after telling the other ranks."""
    if cause := failure_elsewhere(error):
        return EXIT_PEER_FAILED, stopping_message(launched_rank(), cause)
    reason = "".join(traceback.format_exception_only(error)).strip()
    code, message = 1, "".join(traceback.format_exception(error)).strip()
    if isinstance(error, UserError):
        code, reason, message = 2, str(error), f"error: {error}"
    elif isinstance(error, KeyboardInterrupt):
        code, reason, message = 130, "interrupted", "interrupted"
    tell_failure(reason, final=code != 1)
    return code, message
