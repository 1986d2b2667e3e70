"""Heartbeats between ranks: each rank learns, by name, that another one has died, stopped, failed or fallen behind.

Collectives do not report this. Under MPI, a stopped rank leaves the others waiting inside MPI forever: Horovod's stall
check runs between reductions and never gets its turn. Under Gloo the others only see that some connection was closed.
If a rank hangs while it reads, Horovod announces its shutdown, yet a step with many reductions keeps waiting. Therefore
every rank holds a TCP connection to rank 0 (`peers`), and both ends send a line of JSON every second: the current task
and the progress so far. Rank 0 passes on what it learns, and every rank that still runs ends with the cause.

In an elastic run the other ranks do not end: the heartbeats interrupt what their main threads wait for, which then
start again. Only a rank that hangs must end, so that its launcher can replace it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfinpaint.distributed.peers import LONGEST_LINE, Peer, connect_ranks
from tfinpaint.system.activity import activity_count

BEAT_SECONDS = 1.0
GRACE_SECONDS = 3.0  # for the main thread to end by itself, with a better message, after another rank has failed
EXIT_PEER_FAILED = 3


class Heartbeat:
    """This rank's end of the heartbeats: rank 0 watches all other ranks, and each of them watches rank 0.

    Ranks perform the same tasks in the same order and count them. A rank that has done less than the others keeps them
    waiting once all of them are at rest, which is when their processes give no signs of work (`system.activity`).
    """

    def __init__(
        self,
        rank: int,
        peers: Sequence[Peer],
        timeout_s: float,
        stall_timeout_s: float,
        on_loss: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            timeout_s: seconds of silence after which a rank counts as lost.
            stall_timeout_s: seconds of rest of all ranks after which a rank that is behind counts as hanging.
            on_loss: for elastic runs: called from the heartbeat thread when another rank is lost, to interrupt the
                collectives that the main thread may wait in. The main thread then has `stall_timeout_s` to ask for the
                cause.
        """
        self._on_loss = on_loss
        self._rank, self._timeout_s = rank, timeout_s
        self._peers = {peer.rank: peer for peer in peers}
        self._beat_s = min(BEAT_SECONDS, timeout_s / 4)
        self._stall_timeout_s = max(stall_timeout_s, 3 * self._beat_s)  # what is known of others is a beat old
        self._selector = selectors.DefaultSelector()
        for peer in peers:
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        self._task, self._progress = "starting", 0
        self._signs, self._seen_signs, self._idle_s = 0, 0, 0.0  # signs of work: of the main thread, and as last seen
        self._arrived, self._all_arrived = 0, 0  # collectives that this rank, and that every rank has reached
        self._arrival = threading.Condition()
        self._cause = ""
        self.final = False  # True if an elastic run should end as well, because of more than the loss of a rank
        self._known, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def report_task(self, task: str) -> None:
        """Set what this rank does; the others report it if this rank dies. Every rank reports the same tasks."""
        self._task = task
        self.advance()

    def advance(self) -> None:
        """Count one more task or collective that this rank has reached."""
        self._progress += 1
        self._signs += 1

    def wait_for_ranks(self) -> None:
        """Wait until every rank has come as far as this one; return early if one is lost.

        Every rank calls this before each collective. Horovod ends ranks that wait in a collective for long, whatever
        the others still do; here they wait as long as the others give signs of work.
        """
        self.advance()
        with self._arrival:
            self._arrived += 1
            if self._rank == 0:
                self._announce_arrivals()
            else:
                for peer in list(self._peers.values()):
                    peer.send(arrived=self._arrived)
            self._arrival.wait_for(lambda: self._all_arrived >= self._arrived or self.lost or not self._peers)

    def _announce_arrivals(self) -> None:
        """On rank 0: tell the others how many collectives every rank has reached, if the number has grown."""
        with self._arrival:
            peers = list(self._peers.values())
            least = min([self._arrived, *(peer.arrived for peer in peers)])
            if least > self._all_arrived:
                self._all_arrived = least
                for peer in peers:
                    peer.send(all_arrived=least)
            self._arrival.notify_all()

    def where(self) -> str:
        """Return the last known tasks of the ranks that this one watches."""
        return "; ".join(f"{peer} is {peer.task}" for peer in list(self._peers.values()))

    def fail(self, reason: str, *, final: bool = False) -> None:
        """Tell the other ranks that this one ends, and why. The caller ends the process.

        Args:
            final: True if an elastic run should end as well, because the same would happen to the other ranks.
        """
        self._ending.set()
        for peer in list(self._peers.values()):
            peer.send(failed=_shortened(reason), task=self._task, final=final)

    @property
    def lost(self) -> bool:
        """True once another rank has failed."""
        return self._known.is_set()

    def cause(self, wait_s: float) -> str:
        """Return which other rank has failed and how, as soon as it is known; "" if that takes longer than `wait_s`.

        It is for a caller whose collective broke, and who ends the process or starts again.
        """
        self._ending.set()
        self._known.wait(wait_s)
        return self._cause

    def close(self) -> None:
        """Tell the other ranks that this one has finished, and close the connections."""
        self._ending.set()
        peers, self._peers = self._peers, {}
        self._wake()
        for peer in peers.values():
            peer.send(leaving=True)
            peer.connection.close()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # without this thread the others would consider this rank lost
            print(f"rank {self._rank}: the heartbeats have ended: {error!r}", file=sys.stderr, flush=True)
            self.close()

    def _watch(self) -> None:
        last = time.monotonic()
        next_beat = last
        while not self._known.is_set() and self._peers:
            if (now := time.monotonic()) >= next_beat:
                next_beat = now + self._beat_s
                for peer in list(self._peers.values()):
                    peer.send(task=self._task, progress=self._progress, idle_s=round(self._idle_s, 1))
            for key, _ in self._selector.select(self._beat_s / 2):
                self._listen_to(key.data)
            # If this process itself was stopped, the silence of the others meanwhile does not count.
            passed = min(time.monotonic() - last, self._beat_s)
            last = time.monotonic()
            signs = self._signs + activity_count()
            self._idle_s = self._idle_s + passed if signs == self._seen_signs else 0.0
            self._seen_signs = signs
            for peer in list(self._peers.values()):
                peer.silent_s += passed
                if peer.silent_s > self._timeout_s:
                    self._conclude(
                        f"{peer} has not responded for {self._timeout_s:g} s: it is stopped, or its host cannot be "
                        f"reached; last seen {peer.task}",
                        peer,
                    )
            if self._rank == 0:
                self._find_hanging_ranks()

    def _find_hanging_ranks(self) -> None:
        peers = list(self._peers.values())
        least = min([self._progress, *(peer.progress for peer in peers)])
        most = max([self._progress, *(peer.progress for peer in peers)])
        if least == most or min([self._idle_s, *(peer.idle_s for peer in peers)]) <= self._stall_timeout_s:
            return
        behind = {peer.rank: f"{peer}, {peer.task}" for peer in peers if peer.progress == least}
        if self._progress == least:
            behind = {0: f"rank 0 ({socket.gethostname()}), {self._task}", **behind}
        self._conclude(
            f"all ranks wait for {'; '.join(behind.values())}, for {self._stall_timeout_s:g} s: a file system may "
            "hang. If it is only slow, raise distributed.stall_timeout_s",
            hanging=list(behind),
        )

    def _listen_to(self, peer: Peer) -> None:
        messages = peer.receive()
        for message in messages or ():
            if not self._take(peer, message):
                return
        if messages is None:
            self._conclude(
                f"{peer} died {peer.task} without reporting an error (killed, crashed or out of memory)", peer
            )

    def _take(self, peer: Peer, message: dict[str, Any]) -> bool:
        """Note what a peer reports; return False if nothing that follows it matters."""
        peer.task = message.get("task", peer.task)
        peer.progress = message.get("progress", peer.progress)
        peer.idle_s = message.get("idle_s", peer.idle_s)
        if "arrived" in message:
            peer.arrived = message["arrived"]
            self._announce_arrivals()
        if "all_arrived" in message:
            with self._arrival:
                self._all_arrived = message["all_arrived"]
                self._arrival.notify_all()
        if "leaving" in message:
            self._forget(peer)
        elif "failed" in message:
            self._conclude(f"{peer} failed {peer.task}: {message['failed']}", peer, final=message["final"])
        elif "cause" in message:
            self._conclude(message["cause"], peer, final=message["final"], hanging=message["hanging"])
        else:
            return True
        return False

    def _forget(self, peer: Peer) -> None:
        with contextlib.suppress(KeyError, ValueError):  # the main thread has closed it
            self._selector.unregister(peer.connection)
        self._peers.pop(peer.rank, None)
        self._wake()

    def _wake(self) -> None:
        """Let the main thread check again for which ranks it waits."""
        with self._arrival:
            self._arrival.notify_all()

    def _conclude(
        self, cause: str, source: Peer | None = None, *, final: bool = False, hanging: Sequence[int] = ()
    ) -> None:
        """Pass the cause on to all ranks but its source; end this process unless its main thread already does.

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
    """Return the message of a rank that ends because of another one."""
    return "\n".join(f"error: rank {rank} stops: {line}" for line in cause.splitlines())


def _shortened(reason: str) -> str:
    """Return the end of a reason, as much of it as fits into a line together with the rest of the message."""
    return reason.encode(errors="replace")[-LONGEST_LINE // 4 :].decode(errors="ignore")


def join_heartbeats(
    rank: int,
    addresses: Sequence[str],
    all_gather: Callable[[Any], list[Any]],
    timeout_s: float,
    stall_timeout_s: float,
    on_loss: Callable[[], None] | None = None,
) -> Heartbeat:
    """Connect all ranks to rank 0 and start the heartbeats; every rank calls this.

    Args:
        addresses, all_gather: as `connect_ranks` takes them.
        timeout_s, stall_timeout_s, on_loss: as `Heartbeat` takes them.
    """
    return Heartbeat(rank, connect_ranks(rank, addresses, all_gather), timeout_s, stall_timeout_s, on_loss)
