"""How a rank learns that another has failed, and how it tells the others that it fails itself."""

from __future__ import annotations

import threading

from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.heartbeat import Heartbeat

BROKEN_SECONDS = 5.0  # within which the cause of a broken collective is known, if another rank's death is the cause


class RankLostError(Exception):
    """Another rank has died or failed: this one's collectives are broken, or would never end."""


class HostsChangedError(Exception):
    """Raised by all ranks of an elastic run at the same place, where nothing is lost if they start again."""


hosts_changed = threading.Event()  # set on rank 0 once the launcher of an elastic run tells of a change

_heartbeat: Heartbeat | None = None  # the heartbeat of this process, once it has joined others


def use_heartbeat(heartbeat: Heartbeat) -> None:
    """Make a heartbeat that of this process: from now on the other ranks learn what happens to it."""
    global _heartbeat
    _heartbeat = heartbeat


def current_heartbeat() -> Heartbeat | None:
    """Return the heartbeat of this process; None where it has joined no other ranks."""
    return _heartbeat


def report_task(task: str) -> None:
    """Say what this rank does, such as "in epoch 1, step 3"; the other ranks report it should this one die."""
    if _heartbeat:
        _heartbeat.report_task(task)
        raise_if_rank_lost()


def wait_for_ranks() -> None:
    """Come to a collective: wait until all ranks have, so that one that does not is found."""
    if _heartbeat:
        _heartbeat.wait_for_ranks()
        raise_if_rank_lost()


def raise_if_rank_lost() -> None:
    """In an elastic run no other thread ends this process when a rank is lost: do not go on to what cannot end."""
    if _heartbeat and _heartbeat.lost and rendezvous.is_elastic():
        raise RankLostError


def tell_failure(reason: str, *, final: bool = False) -> None:
    """Let the other ranks know that this one ends, and why; they end too.

    Args:
        final: those of an elastic run as well, since without this rank the same would happen to them.
    """
    if _heartbeat:
        _heartbeat.fail(reason, final=final)


def failure_elsewhere(error: BaseException) -> str | None:
    """Why a collective broke, where that is what the error says; None for any other error.

    When a rank dies, the others' reductions fail with words about connections; what they mean is known a moment later.
    """
    if _heartbeat is None or not _is_of_horovod(error):
        return None
    where = _heartbeat.where()
    if cause := _heartbeat.cause(BROKEN_SECONDS):
        return cause
    words = next((line for line in str(error).splitlines() if "horovod" in line.lower()), type(error).__name__)
    reason = f"a reduction over the ranks failed: {words.strip()}; {where}"
    _heartbeat.fail(reason)
    return reason


def loss_to_survive(error: BaseException) -> str | None:
    """What has happened, where an elastic run goes on after this error; None where it should end."""
    if isinstance(error, HostsChangedError):
        return "Hosts have come or gone"
    if _heartbeat is None:
        return "A rank was lost while the ranks joined" if _is_of_horovod(error) else None
    cause = failure_elsewhere(error)
    return None if _heartbeat.final else cause


def _is_of_horovod(error: BaseException) -> bool:
    if isinstance(error, RankLostError) or type(error).__name__ == "HorovodInternalError":
        return True
    shut_down = isinstance(error, ValueError) and "Horovod has not been initialized" in str(error)
    return shut_down or (type(error).__module__.startswith("tensorflow.") and "horovod" in str(error).lower())
