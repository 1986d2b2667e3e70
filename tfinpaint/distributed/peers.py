"""Connect every rank to rank 0 over TCP, and exchange messages over these connections, each a line of JSON.

Rank 0 accepts connections only until all ranks have come, only from ranks that know a random token, and only at the
addresses that it announces: on a single host, that of the loopback interface.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

log = logging.getLogger(__name__)

JOIN_SECONDS = 10.0  # for connecting to rank 0, over all of its addresses together
HELLO_BYTES = 256  # longest first line of a connection: the rank and the token
LONGEST_LINE = 16 * 2**10  # bytes


@dataclass
class Peer:
    """The rank at the other end of a connection, and what it has reported.

    Attributes:
        task: what it does, such as "in epoch 3, step 7".
        progress: how many tasks it has begun and collectives it has reached.
        silent_s: seconds since its last message.
        idle_s: seconds for which it has given no sign of work.
        arrived: how many collectives it has reached.
    """

    rank: int
    host: str
    connection: socket.socket
    task: str = "starting"
    progress: int = 0
    silent_s: float = 0.0
    idle_s: float = 0.0
    arrived: int = 0
    received: bytearray = field(default_factory=bytearray)
    sending: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host})"

    def send(self, **message: Any) -> None:
        """Send a message; a broken connection is noticed when it is read."""
        with contextlib.suppress(OSError):
            line = json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n"
            with self.sending:
                self.connection.sendall(line)

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the messages that have arrived, or None at the end of the connection."""
        try:
            data = self.connection.recv(LONGEST_LINE)
        except OSError:
            return None
        self.received += data
        *lines, rest = bytes(self.received).split(b"\n")
        self.received = bytearray(rest)
        if not data or len(rest) > LONGEST_LINE:
            return None
        self.silent_s = 0.0
        return [json.loads(line) for line in lines]


def connect_ranks(rank: int, addresses: Sequence[str], all_gather: Callable[[Any], list[Any]]) -> list[Peer]:
    """Connect all ranks to rank 0; every rank calls this.

    Args:
        addresses: of this host, at which rank 0 listens for the others; loopback alone if all ranks share a host.
        all_gather: returns the JSON-able values of all ranks on every rank.

    Returns:
        On rank 0 the other ranks, on each other rank only rank 0; ranks that could not connect are missing.
    """
    listeners, token = (_listen(addresses), secrets.token_hex(16)) if rank == 0 else ([], "")
    invitation = all_gather({"addresses": [each.getsockname() for each in listeners], "token": token})[0]
    own = None if rank == 0 else _connect(rank, **invitation)
    hosts = all_gather({"host": socket.gethostname(), "joined": rank == 0 or own is not None})
    if rank:
        return [Peer(0, hosts[0]["host"], own)] if own else []
    expected = {number: found["host"] for number, found in enumerate(hosts) if number and found["joined"]}
    peers = _accept(listeners, token, expected)
    if missing := sorted(set(range(1, len(hosts))) - {peer.rank for peer in peers}):
        ranks = ", ".join(f"{number} ({hosts[number]['host']})" for number in missing)
        log.warning(
            f"No heartbeats of rank {ranks}, which cannot connect to {' or '.join(addresses)} of this host: if it is "
            "lost, the other ranks may wait forever"
        )
    return peers


def _listen(addresses: Sequence[str]) -> list[socket.socket]:
    """Return a listener at a free port of each address; an address that no longer exists has none."""
    listeners = []
    for address in addresses:
        with contextlib.suppress(OSError):
            listeners.append(socket.create_server((address, 0), backlog=1024))
    return listeners


def _connect(rank: int, addresses: Sequence[tuple[str, int]], token: str) -> socket.socket | None:
    for address, port in addresses:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((address, port), timeout=JOIN_SECONDS / len(addresses))
            connection.sendall(json.dumps({"rank": rank, "token": token}).encode() + b"\n")
            return connection
    return None


def _accept(listeners: Sequence[socket.socket], token: str, expected: Mapping[int, str]) -> list[Peer]:
    """Return the connections of the expected ranks; every other connection is closed, whatever it sends.

    Args:
        expected: rank -> host.
    """
    peers: dict[int, Peer] = {}
    received: dict[socket.socket, bytes] = {}
    deadline = time.monotonic() + JOIN_SECONDS
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for listener in listeners:
            selector.register(stack.enter_context(listener), selectors.EVENT_READ)
        while len(peers) < len(expected) and time.monotonic() < deadline:
            for key, _ in selector.select(0.2):
                if key.fileobj in listeners:
                    connection, _ = cast(socket.socket, key.fileobj).accept()
                    connection.settimeout(1.0)
                    received[connection] = b""
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                connection = cast(socket.socket, key.fileobj)
                byte = _next_byte(connection)
                received[connection] += byte
                if byte not in (b"", b"\n") and len(received[connection]) < HELLO_BYTES:
                    continue
                selector.unregister(connection)
                rank = _rank_of(received.pop(connection), token)
                if rank is not None and rank in expected and rank not in peers:
                    peers[rank] = Peer(rank, expected[rank], connection)
                else:
                    connection.close()
    for connection in received:
        connection.close()
    return list(peers.values())


def _next_byte(connection: socket.socket) -> bytes:
    """Return one byte, because what follows the first line is for the heartbeats; b"" at the end of the connection."""
    try:
        return connection.recv(1)
    except OSError:
        return b""


def _rank_of(hello: bytes, token: str) -> int | None:
    """Return the rank that a first line names, or None if the token is wrong."""
    try:
        message = json.loads(hello)
        known = hmac.compare_digest(str(message["token"]).encode(), token.encode())
        return int(message["rank"]) if known else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
