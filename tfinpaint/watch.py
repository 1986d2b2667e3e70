"""Heartbeats between ranks: each learns, and by name, that another has died, stopped, failed or fallen behind.

The collectives do not tell. Under MPI, a rank that is stopped leaves the others waiting inside MPI for ever: Horovod's
stall check runs between reductions and never gets its turn. Under Gloo they see that some connection was closed. Of a
rank that hangs while it reads, Horovod says that it shuts down, and a step with many reductions waits on. So every rank
holds a TCP connection to rank 0, on which both send a line of JSON a second: what they are at, and how far they are.
Rank 0 passes on what it learns, and every rank that still runs ends with the cause. On a single host only the loopback
interface is used.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

BEAT_SECONDS = 1.0
JOIN_SECONDS = 10.0  # for connecting to rank 0, all addresses together
GRACE_SECONDS = 3.0  # for the main thread to end by itself, and with more to tell, once another rank has failed
LONGEST_LINE = 16 * 2**10  # bytes
EXIT_PEER_FAILED = 3


@dataclass
class _Peer:
    """A rank at the other end of a connection."""

    rank: int
    host: str
    connection: socket.socket
    doing: str = "starting"
    progress: int = 0
    silent_s: float = 0.0
    idle_s: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host})"

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # a connection that is gone is noticed when it is read
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have come; None at the end of the connection."""
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


class Watch:
    """This rank's end of the heartbeats: rank 0 watches all others, each of them watches rank 0.

    Ranks do the same things in the same order and count them. One that has done less than others, all of whom have
    come to rest, keeps them waiting.
    """

    def __init__(self, rank: int, peers: Sequence[_Peer], timeout_s: float, stall_timeout_s: float) -> None:
        """
        Args:
            timeout_s: silence after which a rank counts as lost, seconds.
            stall_timeout_s: rest of all ranks after which one that is behind counts as hanging, seconds.
        """
        self._rank, self._timeout_s = rank, timeout_s
        self._peers = {peer.rank: peer for peer in peers}
        self._beat_s = min(BEAT_SECONDS, timeout_s / 4)
        self._stall_timeout_s = max(stall_timeout_s, 3 * self._beat_s)  # what is known of others is a beat old
        self._selector = selectors.DefaultSelector()
        for peer in peers:
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        self._doing, self._progress, self._idle_s = "starting", 0, 0.0
        self._cause = ""
        self._known, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def doing(self, what: str) -> None:
        """Say what this rank is at; it is what the others tell should it die. Every rank says the same things."""
        self._doing = what
        self.advance()

    def advance(self) -> None:
        """Count one more thing that this rank has come to, such as a collective."""
        self._progress += 1
        self._idle_s = 0.0

    def where(self) -> str:
        """What the ranks that this one watches were last seen at."""
        return "; ".join(f"{peer} is {peer.doing}" for peer in self._peers.values())

    def fail(self, reason: str) -> None:
        """Tell the others that this rank ends, and why. The caller ends the process."""
        self._ending.set()
        for peer in list(self._peers.values()):
            peer.send(failed=reason[-LONGEST_LINE // 2 :], doing=self._doing)

    def cause(self, wait_s: float) -> str:
        """Which other rank has failed and how, as soon as it is known; "" where that takes longer.

        For a caller whose collective broke, and who ends the process.
        """
        self._ending.set()
        self._known.wait(wait_s)
        return self._cause

    def close(self) -> None:
        """Say goodbye: this rank is done."""
        self._ending.set()
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            peer.send(leaving=True)
            peer.connection.close()

    def _run(self) -> None:
        last = time.monotonic()
        next_beat = last
        while not self._known.is_set() and self._peers:
            if (now := time.monotonic()) >= next_beat:
                next_beat = now + self._beat_s
                for peer in list(self._peers.values()):
                    peer.send(doing=self._doing, progress=self._progress)
            for key, _ in self._selector.select(self._beat_s / 2):
                self._listen_to(key.data)
            # Where this process itself was stopped, the others' silence meanwhile does not count.
            passed = min(time.monotonic() - last, self._beat_s)
            last = time.monotonic()
            self._idle_s += passed
            for peer in list(self._peers.values()):
                peer.idle_s += passed
                peer.silent_s += passed
                if peer.silent_s > self._timeout_s:
                    self._conclude(
                        f"{peer} has not been heard of for {self._timeout_s:g} s: it is stopped, or its host cannot be "
                        f"reached; last seen {peer.doing}",
                        peer,
                    )
            if self._rank == 0:
                self._look_for_a_hanging_rank()

    def _look_for_a_hanging_rank(self) -> None:
        peers = list(self._peers.values())
        least = min([self._progress, *(peer.progress for peer in peers)])
        most = max([self._progress, *(peer.progress for peer in peers)])
        if least == most or min([self._idle_s, *(peer.idle_s for peer in peers)]) <= self._stall_timeout_s:
            return
        behind = [f"{peer}, {peer.doing}" for peer in peers if peer.progress == least]
        if self._progress == least:
            behind = [f"rank 0 ({socket.gethostname()}), {self._doing}", *behind]
        self._conclude(
            f"all wait for {'; '.join(behind)}, for {self._stall_timeout_s:g} s: its file system or device may hang. "
            "Where it only is slow, raise distributed.stall_timeout_s"
        )

    def _listen_to(self, peer: _Peer) -> None:
        messages = peer.receive()
        for message in messages or ():
            peer.doing = message.get("doing", peer.doing)
            if message.get("progress", peer.progress) != peer.progress:
                peer.progress, peer.idle_s = message["progress"], 0.0
            if "leaving" in message:
                return self._forget(peer)
            if "failed" in message:
                return self._conclude(f"{peer} failed {peer.doing}: {message['failed']}", peer)
            if "cause" in message:
                return self._conclude(message["cause"], peer)
        if messages is None:
            self._conclude(f"{peer} died {peer.doing}, without a word (killed, crashed or out of memory)", peer)
        return None

    def _forget(self, peer: _Peer) -> None:
        with contextlib.suppress(KeyError, ValueError):  # the main thread has closed it
            self._selector.unregister(peer.connection)
        self._peers.pop(peer.rank, None)

    def _conclude(self, cause: str, source: _Peer | None = None) -> None:
        """Pass the cause on to all but its source; end this process unless its main thread is at that already."""
        if self._known.is_set():
            return
        if source:
            self._forget(source)
        self._cause = cause
        self._known.set()
        for peer in self._peers.values():
            peer.send(cause=cause)
        if not self._ending.wait(GRACE_SECONDS):
            sys.stdout.flush()
            print(stopping(self._rank, cause), file=sys.stderr, flush=True)
            os._exit(EXIT_PEER_FAILED)


def stopping(rank: int, cause: str) -> str:
    """What a rank says that ends because of another."""
    return "\n".join(f"error: rank {rank} stops: {line}" for line in cause.splitlines())


def join(
    rank: int,
    addresses: Sequence[str],
    gather: Callable[[Any], list[Any]],
    timeout_s: float,
    stall_timeout_s: float,
) -> Watch:
    """Connect all ranks to rank 0; every rank calls this.

    Args:
        addresses: of this host, at which rank 0 listens for the others; loopback alone where all share a host.
        gather: gives every rank the JSON-able values of all.
        timeout_s, stall_timeout_s: of `Watch`.
    """
    listener, token = _listen(addresses) if rank == 0 else (None, "")
    invitation = gather(
        {"addresses": addresses, "port": listener.getsockname()[1], "token": token} if listener else {}
    )[0]
    own = None if rank == 0 else _connect(rank, **invitation)
    hosts = gather({"host": socket.gethostname(), "joined": rank == 0 or own is not None})
    if listener:
        awaited = {number: found["host"] for number, found in enumerate(hosts) if number and found["joined"]}
        peers = _accept(listener, token, awaited)
    else:
        peers = [_Peer(0, hosts[0]["host"], own)] if own else []
    return Watch(rank, peers, timeout_s, stall_timeout_s)


def _listen(addresses: Sequence[str]) -> tuple[socket.socket, str]:
    listener = socket.create_server((addresses[0] if len(addresses) == 1 else "", 0), backlog=1024)
    return listener, secrets.token_hex(16)


def _connect(rank: int, addresses: Sequence[str], port: int, token: str) -> socket.socket | None:
    for address in addresses:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((address, port), timeout=JOIN_SECONDS / len(addresses))
            connection.sendall(json.dumps({"rank": rank, "token": token}).encode() + b"\n")
            return connection
    return None


def _accept(listener: socket.socket, token: str, awaited: dict[int, str]) -> list[_Peer]:
    """The connections of the awaited ranks, who have all written by now; a stranger's is closed."""
    peers: dict[int, _Peer] = {}
    deadline = time.monotonic() + JOIN_SECONDS
    with listener:
        listener.settimeout(1.0)
        while len(peers) < len(awaited) and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                connection, _ = listener.accept()
                connection.settimeout(1.0)
                hello = json.loads(_first_line(connection))
                rank = hello["rank"]
                if hmac.compare_digest(str(hello["token"]), token) and rank in awaited:
                    peers[rank] = _Peer(rank, awaited[rank], connection)
                else:
                    connection.close()
    return list(peers.values())


def _first_line(connection: socket.socket) -> bytes:
    """Up to the first newline and no further: what follows is for the heartbeats."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE and (byte := connection.recv(1)):
        line += byte
    return line
