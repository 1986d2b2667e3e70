"""Learn that another rank has failed, and tell the other ranks that this one fails."""

from __future__ import annotations

import os
import sys
import threading
import time

from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.environment import launched_rank, launched_size
from tfinpaint.distributed.heartbeat import EXIT_PEER_FAILED, Heartbeat

BROKEN_SECONDS = 5.0  # within which the death of another rank is known, if it has broken a collective


class RankLostError(Exception):
    """Another rank has died or failed, so that this one's collectives are broken or would never end."""


class HostsChangedError(Exception):
    """Raised by all ranks of an elastic run at the same step, where nothing is lost if they start again."""


hosts_changed = threading.Event()  # set on rank 0 once the launcher of an elastic run reports a change

_heartbeat: Heartbeat | None = None  # the heartbeat of this process, once it has joined others


def use_heartbeat(heartbeat: Heartbeat) -> None:
    """Set the heartbeat of this process, by which the other ranks learn what happens to it."""
    global _heartbeat
    _heartbeat = heartbeat


def current_heartbeat() -> Heartbeat | None:
    """Return the heartbeat of this process, or None if it has joined no other ranks."""
    return _heartbeat


def report_task(task: str) -> None:
    """Set what this rank does, such as "in epoch 1, step 3"; the other ranks report it if this one dies.

    Raises:
        RankLostError: another rank of an elastic run is lost.
    """
    if _heartbeat:
        _heartbeat.report_task(task)
        raise_if_rank_lost()


def wait_for_ranks() -> None:
    """Wait, before a collective, until all ranks have reached it, so that a rank that does not is found.

    Raises:
        RankLostError: another rank of an elastic run is lost.
    """
    if _heartbeat:
        _heartbeat.wait_for_ranks()
        raise_if_rank_lost()


def raise_if_rank_lost() -> None:
    """Raise RankLostError if a rank of an elastic run is lost: there the heartbeat thread does not end this process."""
    if _heartbeat and _heartbeat.lost and rendezvous.is_elastic():
        raise RankLostError


def tell_failure(reason: str, *, final: bool = False) -> None:
    """Tell the other ranks that this one ends, and why; they end as well.

    Args:
        final: True if an elastic run should end as well, because the same would happen to the other ranks.
    """
    if _heartbeat:
        _heartbeat.fail(reason, final=final)


def failure_elsewhere(error: BaseException) -> str | None:
    """Return why a collective broke if the error is of that kind, or None for any other error.

    When a rank dies, the reductions of the others fail with messages about connections; the cause is known soon after.
    """
    if _heartbeat is None or not _is_of_horovod(error):
        return None
    where = _heartbeat.where()
    if cause := _heartbeat.cause(BROKEN_SECONDS):
        return cause
    message = next((line for line in str(error).splitlines() if "horovod" in line.lower()), type(error).__name__)
    reason = f"a reduction over the ranks failed: {message.strip()}; {where}"
    _heartbeat.fail(reason)
    return reason


def loss_to_survive(error: BaseException) -> str | None:
    """Return what has happened if an elastic run continues after this error, or None if it should end."""
    if isinstance(error, HostsChangedError):
        return "Hosts were added or removed"
    if _heartbeat is None:
        return "A rank was lost while the ranks joined" if _is_of_horovod(error) else None
    cause = failure_elsewhere(error)
    return None if _heartbeat.final else cause


def _is_of_horovod(error: BaseException) -> bool:
    if isinstance(error, RankLostError) or type(error).__name__ == "HorovodInternalError":
        return True
    shut_down = isinstance(error, ValueError) and "Horovod has not been initialized" in str(error)
    return shut_down or (type(error).__module__.startswith("tensorflow.") and "horovod" in str(error).lower())


def end_rank(code: int, message: str) -> None:
    """Print why this rank ends, and end it if there are others: to wait for them as Horovod does would never end."""
    rank = launched_rank()  # an elastic run may have given it another
    if rank and code != EXIT_PEER_FAILED:
        # Rank 0 usually fails for the same reason and says so; its launcher then ends this process before it prints.
        time.sleep(2)
        message = f"rank {rank}: {message}"
    print(message, file=sys.stderr, flush=True)
    if launched_size() > 1:
        sys.stdout.flush()
        os._exit(code)
