"""Ask the launcher of an elastic run which processes take part now, and as which ranks.

`horovodrun --host-discovery-script` runs an HTTP server for its ranks. Horovod's own `init` asks it as well, and aborts
the process, in C++, if it is no longer needed or if another rank does not come. Therefore this module asks the server,
and Horovod is started once all ranks are there. It does not import Horovod.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from http import HTTPStatus

from tfinpaint.errors import UserError

log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0
WARN_SECONDS = 30.0
ARRIVAL_SECONDS = 120.0  # for a new process to import everything, possibly from a slow file system
POLL_SECONDS = 0.1
# In the order of the launcher's answer; the launcher also sets them for each process that it starts.
_PLACE = (
    "HOROVOD_RANK",
    "HOROVOD_SIZE",
    "HOROVOD_LOCAL_RANK",
    "HOROVOD_LOCAL_SIZE",
    "HOROVOD_CROSS_RANK",
    "HOROVOD_CROSS_SIZE",
)


class DismissedError(Exception):
    """The run continues without this process: its host was removed from the list, or has failed."""


def is_elastic() -> bool:
    """Return True if the launcher of this process replaces ranks while they run."""
    return os.environ.get("HOROVOD_ELASTIC") == "1" and "HOROVOD_GLOO_RENDEZVOUS_ADDR" in os.environ


def wait_for_all_ranks() -> None:
    """Wait until all ranks of the assignment in the environment are there; if some do not come, ask for a new one.

    Raises:
        DismissedError, UserError: as `ask_for_place` raises them.
    """
    while not _all_are_here():
        log.warning(f"Not all of {os.environ['HOROVOD_SIZE']} ranks have joined within {ARRIVAL_SECONDS:g} s")
        # A rank that comes later must not conclude that this one still waits, and start Horovod alone.
        _request("DELETE", f"/arrived/{os.environ['HOROVOD_RANK']}")
        os.environ.update(ask_for_place())


def ask_for_place() -> dict[str, str]:
    """Return this process's new rank and sizes, as environment variables of a process that the launcher starts.

    The launcher answers once each rank that it knows of has asked, or has ended.

    Raises:
        DismissedError: there is no place for this process.
        UserError: the launcher does not answer.
    """
    rank, host = os.environ["HOROVOD_RANK"], os.environ["HOROVOD_HOSTNAME"]
    impatient = threading.Timer(
        WARN_SECONDS,
        log.warning,
        [
            f"Rank {rank} waits for the launcher, which waits for a rank that neither continues nor ends: it is "
            "stopped, or its host cannot be reached. The run continues once that process, or the ssh to its host, ends"
        ],
    )
    impatient.start()
    try:
        _, answer = _request("GET", f"/rank_and_size/{host}:{os.environ['HOROVOD_LOCAL_RANK']}", patient=True)
    finally:
        impatient.cancel()
    place = answer.decode().split(",")
    if int(place[0]) < 0:
        raise DismissedError(f"The run continues without this process, formerly rank {rank} on {host}")
    return dict(zip(_PLACE, place, strict=True))


def _all_are_here() -> bool:
    """Register this rank, until the next assignment; return True once all ranks have registered."""
    _request("PUT", f"/arrived/{os.environ['HOROVOD_RANK']}")
    deadline = time.monotonic() + ARRIVAL_SECONDS
    for rank in range(int(os.environ["HOROVOD_SIZE"])):
        while _request("GET", f"/arrived/{rank}")[0] != HTTPStatus.OK:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
    return True


def _request(method: str, path: str, *, patient: bool = False) -> tuple[int, bytes]:
    """Return the status and the body of the launcher's answer.

    Args:
        patient: wait as long as the launcher and its host exist.
    """
    import http.client  # only elastic runs need it, and it takes time to load

    host, port = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.connect()
        if patient:
            connection.sock.settimeout(None)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(ANSWER_SECONDS))
        connection.request(method, path, body=b"1" if method == "PUT" else None)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"the elastic launcher at {host}:{port} does not answer ({error}): it has ended, or its host cannot be "
            "reached; start again with --resume"
        ) from None
    finally:
        connection.close()
