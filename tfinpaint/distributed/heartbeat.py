"""Heartbeats between ranks: each learns, and by name, that another has died, stopped, failed or fallen behind.

The collectives do not tell. Under MPI, a rank that is stopped leaves the others waiting inside MPI for ever: Horovod's
stall check runs between reductions and never gets its turn. Under Gloo they see that some connection was closed. Of a
rank that hangs while it reads, Horovod says that it shuts down, and a step with many reductions waits on. So every rank
holds a TCP connection to rank 0, on which both send a line of JSON a second: what they are at, and how far they are.
Rank 0 passes on what it learns, and every rank that still runs ends with the cause. Rank 0 listens until all have come,
and at the addresses alone that it tells them: on a single host, that of the loopback interface.

In an elastic run the others do not end: the heartbeats break what their main threads wait for, and leave the rest to
them. Only a rank that hangs must end, so that its launcher can replace it.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from tfinpaint.system.activity import activity_count

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
JOIN_SECONDS = 10.0  # for connecting to rank 0, all addresses together
HELLO_BYTES = 256  # of what a rank says first: its number and the token
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
    arrived: int = 0
    received: bytearray = field(default_factory=bytearray)
    sending: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host})"

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # a connection that is gone is noticed when it is read
            line = json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n"
            with self.sending:
                self.connection.sendall(line)

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


class Heartbeat:
    """This rank's end of the heartbeats: rank 0 watches all others, each of them watches rank 0.

    Ranks do the same things in the same order and count them. One that has done less than others, all of whom have
    come to rest, keeps them waiting. A rank has come to rest where its process gives no signs of work (`activity`).
    """

    def __init__(
        self,
        rank: int,
        peers: Sequence[_Peer],
        timeout_s: float,
        stall_timeout_s: float,
        on_loss: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            timeout_s: silence after which a rank counts as lost, seconds.
            stall_timeout_s: rest of all ranks after which one that is behind counts as hanging, seconds.
            on_loss: of an elastic run: called from the heartbeats' thread when another rank is lost, to break the
                collectives that the main thread may wait in. It then has `stall_timeout_s` to ask for the cause.
        """
        self._on_loss = on_loss
        self._rank, self._timeout_s = rank, timeout_s
        self._peers = {peer.rank: peer for peer in peers}
        self._beat_s = min(BEAT_SECONDS, timeout_s / 4)
        self._stall_timeout_s = max(stall_timeout_s, 3 * self._beat_s)  # what is known of others is a beat old
        self._selector = selectors.DefaultSelector()
        for peer in peers:
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        self._doing, self._progress = "starting", 0
        self._signs, self._seen_signs, self._idle_s = 0, 0, 0.0  # of work; written by the main thread, and this one's
        self._arrived, self._all_arrived = 0, 0  # collectives that this rank, and that every rank has come to
        self._arrival = threading.Condition()
        self._cause = ""
        self.final = False  # what has happened is no other rank's loss that an elastic run could get over
        self._known, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def report_task(self, what: str) -> None:
        """Say what this rank is at; it is what the others tell should it die. Every rank says the same things."""
        self._doing = what
        self.advance()

    def advance(self) -> None:
        """Count one more thing that this rank has come to, such as a collective."""
        self._progress += 1
        self._signs += 1

    def wait_for_ranks(self) -> None:
        """Wait until every rank has come as far as this one; return early where one is lost.

        Every rank calls this before each collective. Horovod ends ranks that wait in a collective for long, whatever
        the others are still at; here they may wait as long as those give signs of work.
        """
        self.advance()
        with self._arrival:
            self._arrived += 1
            if self._rank == 0:
                self._note_arrivals()
            else:
                for peer in list(self._peers.values()):
                    peer.send(arrived=self._arrived)
            self._arrival.wait_for(lambda: self._all_arrived >= self._arrived or self.lost or not self._peers)

    def _note_arrivals(self) -> None:
        """On rank 0: let all others know how many collectives every rank has come to, where these are more now."""
        with self._arrival:
            peers = list(self._peers.values())
            least = min([self._arrived, *(peer.arrived for peer in peers)])
            if least > self._all_arrived:
                self._all_arrived = least
                for peer in peers:
                    peer.send(all_arrived=least)
            self._arrival.notify_all()

    def where(self) -> str:
        """What the ranks that this one watches were last seen at."""
        return "; ".join(f"{peer} is {peer.doing}" for peer in list(self._peers.values()))

    def fail(self, reason: str, *, final: bool = False) -> None:
        """Tell the others that this rank ends, and why. The caller ends the process.

        Args:
            final: an elastic run should end too: the same would happen to the others.
        """
        self._ending.set()
        for peer in list(self._peers.values()):
            peer.send(failed=_shortened(reason), doing=self._doing, final=final)

    @property
    def lost(self) -> bool:
        """Another rank has failed."""
        return self._known.is_set()

    def cause(self, wait_s: float) -> str:
        """Which other rank has failed and how, as soon as it is known; "" where that takes longer.

        For a caller whose collective broke, and who ends the process, or starts it again.
        """
        self._ending.set()
        self._known.wait(wait_s)
        return self._cause

    def close(self) -> None:
        """Say goodbye: this rank is done."""
        self._ending.set()
        peers, self._peers = self._peers, {}
        self._wake()
        for peer in peers.values():
            peer.send(leaving=True)
            peer.connection.close()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # without this thread the others would take this rank for lost
            print(f"rank {self._rank}: the heartbeats have ended: {error!r}", file=sys.stderr, flush=True)
            self.close()

    def _watch(self) -> None:
        last = time.monotonic()
        next_beat = last
        while not self._known.is_set() and self._peers:
            if (now := time.monotonic()) >= next_beat:
                next_beat = now + self._beat_s
                for peer in list(self._peers.values()):
                    peer.send(doing=self._doing, progress=self._progress, idle_s=round(self._idle_s, 1))
            for key, _ in self._selector.select(self._beat_s / 2):
                self._listen_to(key.data)
            # Where this process itself was stopped, the others' silence meanwhile does not count.
            passed = min(time.monotonic() - last, self._beat_s)
            last = time.monotonic()
            signs = self._signs + activity_count()
            self._idle_s = self._idle_s + passed if signs == self._seen_signs else 0.0
            self._seen_signs = signs
            for peer in list(self._peers.values()):
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
        behind = {peer.rank: f"{peer}, {peer.doing}" for peer in peers if peer.progress == least}
        if self._progress == least:
            behind = {0: f"rank 0 ({socket.gethostname()}), {self._doing}", **behind}
        self._conclude(
            f"all wait for {'; '.join(behind.values())}, for {self._stall_timeout_s:g} s: a file system may hang. "
            "Where it only is slow, raise distributed.stall_timeout_s",
            hanging=list(behind),
        )

    def _listen_to(self, peer: _Peer) -> None:
        messages = peer.receive()
        for message in messages or ():
            peer.doing = message.get("doing", peer.doing)
            peer.progress = message.get("progress", peer.progress)
            peer.idle_s = message.get("idle_s", peer.idle_s)
            if "arrived" in message:
                peer.arrived = message["arrived"]
                self._note_arrivals()
            if "all_arrived" in message:
                with self._arrival:
                    self._all_arrived = message["all_arrived"]
                    self._arrival.notify_all()
            if "leaving" in message:
                return self._forget(peer)
            if "failed" in message:
                cause = f"{peer} failed {peer.doing}: {message['failed']}"
                return self._conclude(cause, peer, final=message["final"])
            if "cause" in message:
                return self._conclude(message["cause"], peer, final=message["final"], hanging=message["hanging"])
        if messages is None:
            self._conclude(f"{peer} died {peer.doing}, without a word (killed, crashed or out of memory)", peer)
        return None

    def _forget(self, peer: _Peer) -> None:
        with contextlib.suppress(KeyError, ValueError):  # the main thread has closed it
            self._selector.unregister(peer.connection)
        self._peers.pop(peer.rank, None)
        self._wake()

    def _wake(self) -> None:
        """Let the main thread look again at whom it waits for."""
        with self._arrival:
            self._arrival.notify_all()

    def _conclude(
        self, cause: str, source: _Peer | None = None, *, final: bool = False, hanging: Sequence[int] = ()
    ) -> None:
        """Pass the cause on to all but its source; end this process unless its main thread is at that already.

        Args:
            hanging: the ranks whose main threads will not notice.
        """
        if self._known.is_set():
            return
        if source:
            self._forget(source)
        self._cause, self.final = cause, final
        self._known.set()
        self._wake()
        for peer in self._peers.values():
            peer.send(cause=cause, final=final, hanging=hanging)
        grace_s = GRACE_SECONDS
        if self._on_loss and not final and self._rank not in hanging and not self._ending.is_set():
            self._on_loss()
            grace_s = self._stall_timeout_s
        if not self._ending.wait(grace_s):
            sys.stdout.flush()
            print(stopping_message(self._rank, cause), file=sys.stderr, flush=True)
            os._exit(EXIT_PEER_FAILED)


def stopping_message(rank: int, cause: str) -> str:
    """What a rank says that ends because of another."""
    return "\n".join(f"error: rank {rank} stops: {line}" for line in cause.splitlines())


def _shortened(reason: str) -> str:
    """The end of it, as much as fits into a line with what JSON and the others put around it."""
    return reason.encode(errors="replace")[-LONGEST_LINE // 4 :].decode(errors="ignore")


def join_heartbeats(
    rank: int,
    addresses: Sequence[str],
    gather: Callable[[Any], list[Any]],
    timeout_s: float,
    stall_timeout_s: float,
    on_loss: Callable[[], None] | None = None,
) -> Heartbeat:
    """Connect all ranks to rank 0; every rank calls this.

    Args:
        addresses: of this host, at which rank 0 listens for the others; loopback alone where all share a host.
        gather: gives every rank the JSON-able values of all.
        timeout_s, stall_timeout_s, on_loss: of `Watch`.
    """
    listeners, token = (_listen(addresses), secrets.token_hex(16)) if rank == 0 else ([], "")
    invitation = gather({"addresses": [each.getsockname() for each in listeners], "token": token})[0]
    own = None if rank == 0 else _connect(rank, **invitation)
    hosts = gather({"host": socket.gethostname(), "joined": rank == 0 or own is not None})
    if rank == 0:
        awaited = {number: found["host"] for number, found in enumerate(hosts) if number and found["joined"]}
        peers = _accept(listeners, token, awaited)
        if missing := sorted(set(range(1, len(hosts))) - {peer.rank for peer in peers}):
            ranks = ", ".join(f"{number} ({hosts[number]['host']})" for number in missing)
            here = " or ".join(addresses)
            log.warning(
                f"No heartbeats of rank {ranks}, which cannot connect to {here} of this host: should it be lost, the "
                "others may wait for ever"
            )
    else:
        peers = [_Peer(0, hosts[0]["host"], own)] if own else []
    return Heartbeat(rank, peers, timeout_s, stall_timeout_s, on_loss)


def _listen(addresses: Sequence[str]) -> list[socket.socket]:
    """A listener for each address, at a port that is free; an address that is gone meanwhile has none."""
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


def _accept(listeners: Sequence[socket.socket], token: str, awaited: dict[int, str]) -> list[_Peer]:
    """The connections of the awaited ranks; a stranger's is closed, whatever it says or does not say."""
    peers: dict[int, _Peer] = {}
    heard: dict[socket.socket, bytes] = {}
    deadline = time.monotonic() + JOIN_SECONDS
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for listener in listeners:
            selector.register(stack.enter_context(listener), selectors.EVENT_READ)
        while len(peers) < len(awaited) and time.monotonic() < deadline:
            for key, _ in selector.select(0.2):
                if key.fileobj in listeners:
                    connection, _ = cast(socket.socket, key.fileobj).accept()
                    connection.settimeout(1.0)
                    heard[connection] = b""
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                connection = cast(socket.socket, key.fileobj)
                byte = _next_byte(connection)
                heard[connection] += byte
                if byte not in (b"", b"\n") and len(heard[connection]) < HELLO_BYTES:
                    continue
                selector.unregister(connection)
                rank = _rank_of(heard.pop(connection), token)
                if rank in awaited and rank not in peers:
                    peers[rank] = _Peer(rank, awaited[rank], connection)
                else:
                    connection.close()
    for connection in heard:
        connection.close()
    return list(peers.values())


def _next_byte(connection: socket.socket) -> bytes:
    """One at a time: what follows the first line is for the heartbeats. b"" at the end."""
    try:
        return connection.recv(1)
    except OSError:
        return b""


def _rank_of(hello: bytes, token: str) -> int | None:
    try:
        said = json.loads(hello)
        known = hmac.compare_digest(str(said["token"]).encode(), token.encode())
        return int(said["rank"]) if known else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
