"""The heartbeats over real loopback connections: several ranks as threads of this process."""

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tfinpaint.distributed import heartbeat, peers
from tfinpaint.distributed.heartbeat import EXIT_PEER_FAILED, Heartbeat, join_heartbeats
from tfinpaint.system.activity import report_activity

HOST = socket.gethostname()


@pytest.fixture
def exits(monkeypatch):
    """Exit codes of the ranks that a heartbeat thread has ended, in place of this process's end."""
    codes, made = [], []

    class Kept(Heartbeat):
        def __init__(self, *args):
            made.append(self)
            super().__init__(*args)

    monkeypatch.setattr(heartbeat.os, "_exit", codes.append)
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "Heartbeat", Kept)
    yield codes
    for each in made:
        each.close()
    for each in made:
        each._thread.join(10)


def together(ranks, act):
    """`act(rank, gather)` of every rank, each in a thread; gather is what Horovod gives."""
    barrier, said = threading.Barrier(ranks), [None] * ranks

    def gather_of(rank):
        def gather(value):
            said[rank] = json.loads(json.dumps(value))
            barrier.wait(10)
            everything = list(said)
            barrier.wait(10)
            return everything

        return gather

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(lambda rank: act(rank, gather_of(rank)), range(ranks)))


def joined(ranks, timeout_s=30.0, stall_timeout_s=300.0):
    return together(
        ranks, lambda rank, gather: join_heartbeats(rank, ["127.0.0.1"], gather, timeout_s, stall_timeout_s)
    )


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not come to pass within 10 s"
        time.sleep(0.01)


def test_ranks_that_leave_raise_no_alarm(exits, capsys):
    ranks = joined(3, timeout_s=1.0)
    time.sleep(1.5)  # longer than the time-out: the beats themselves keep them alive
    for rank in ranks:
        rank.close()
    until(lambda: not any(rank._thread.is_alive() for rank in ranks))
    assert exits == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_rank_that_dies_ends_all_others_by_name(exits, capsys, dead):
    ranks = joined(3)
    ranks[dead].report_task("in epoch 3, step 7")
    others = [rank for number, rank in enumerate(ranks) if number != dead]
    watching = others if dead == 0 else [ranks[0]]
    until(lambda: all("epoch 3" in rank.where() for rank in watching))
    ranks[dead]._known.set()  # its thread ends
    ranks[dead]._thread.join(10)
    for peer in ranks[dead]._peers.values():  # what the end of the process does to its connections
        peer.connection.shutdown(socket.SHUT_RDWR)
    until(lambda: all(rank._known.is_set() for rank in others))
    until(lambda: exits == [EXIT_PEER_FAILED] * 2)
    said = capsys.readouterr().err.splitlines()
    for number in {0, 1, 2} - {dead}:
        expected = (
            f"error: rank {number} stops: rank {dead} ({HOST}) died in epoch 3, step 7 without reporting an error"
        )
        assert any(line.startswith(expected) for line in said), said


def test_a_rank_that_fails_says_why_and_ends_itself(exits, capsys):
    ranks = joined(3)
    ranks[2].report_task("in epoch 1, evaluation")
    ranks[2].fail("first line\nsecond line")
    until(lambda: len(exits) == 2)
    said = capsys.readouterr().err
    for number in (0, 1):
        start = f"error: rank {number} stops: "
        assert f"{start}rank 2 ({HOST}) failed in epoch 1, evaluation: first line\n{start}second line\n" in said
    ranks[2]._thread.join(10)
    assert len(exits) == 2  # its own end is left to the caller


def mute(rank, gather):
    """Joins, and is never heard of again."""
    if rank == 0:
        return join_heartbeats(0, ["127.0.0.1"], gather, 0.5, 300.0)
    invitation = gather({})[0]
    connection = peers._connect(rank, **invitation)
    gather({"host": "elsewhere", "joined": True})
    return connection


def test_a_silent_rank_is_lost_after_the_timeout(exits, capsys):
    begin = time.monotonic()
    _, connection = together(2, mute)
    until(lambda: exits == [EXIT_PEER_FAILED])
    assert time.monotonic() - begin >= 0.5
    connection.close()
    assert "rank 0 stops: rank 1 (elsewhere) has not responded for 0.5 s: it is stopped, or" in capsys.readouterr().err


def test_the_main_thread_that_asks_for_the_cause_ends_the_process_itself(exits, monkeypatch):
    monkeypatch.setattr(heartbeat, "GRACE_SECONDS", 0.5)
    ranks = joined(2)
    asked = threading.Thread(target=ranks[1].fail, args=("told",))
    asked.start()
    assert ranks[0].cause(wait_s=10).endswith("failed starting: told")
    ranks[0]._thread.join(10)
    assert exits == []
    assert joined(2)[0].cause(wait_s=0.2) == ""  # nothing has happened there


def test_rank_0_listens_where_it_says_and_nowhere_else(exits):
    own = psutil.Process()

    def listening():
        return {tuple(each.laddr) for each in own.net_connections("inet") if each.status == psutil.CONN_LISTEN}

    def act(rank, gather):
        if rank == 0:
            return join_heartbeats(
                0, ["127.0.0.1", "127.0.0.2", "192.0.2.1"], gather, 30.0, 300.0
            )  # the last is not here
        addresses = gather({})[0]["addresses"]
        while_joining = listening()
        gather({"host": "h", "joined": False})
        return {tuple(address) for address in addresses}, while_joining

    before = listening()
    first, (told, found) = together(2, act)
    assert {address for address, _ in told} == {"127.0.0.1", "127.0.0.2"}
    assert found - before == told
    assert listening() == before  # once all have come
    first.close()


def test_strangers_are_not_let_in(exits):
    def act(rank, gather):
        if rank == 0:
            return join_heartbeats(0, ["127.0.0.1"], gather, 30.0, 300.0)
        invitation = gather({})[0]
        forged = {**invitation, "token": "0" * 32}
        strangers = [peers._connect(rank, **forged) for _ in range(2)]
        silent = [socket.create_connection(tuple(invitation["addresses"][0])) for _ in range(30)]
        for words in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"[1]\n",
            b"[" * 5000,
            '{"rank": 1, "token": "é"}\n'.encode(),
            b"{}\n",
        ):
            strangers.append(socket.create_connection(tuple(invitation["addresses"][0])))
            strangers[-1].sendall(words)
        own = peers._connect(rank, **invitation)
        gather({"host": "h", "joined": True})
        return own, strangers + silent

    first, (own, strangers) = together(2, act)
    assert list(first._peers) == [1]
    for stranger in strangers:
        stranger.settimeout(10)
        with contextlib.suppress(ConnectionResetError):  # closed before everything was read
            assert stranger.recv(1) == b""
    assert own.recv(100).startswith(b'{"task": "starting", "progress": 0, "idle_s": ')
    assert first.where() == "rank 1 (h) is starting"


def test_an_endless_line_ends_the_connection(exits, capsys):
    def act(rank, gather):
        connection = mute(rank, gather)
        if rank:
            connection.sendall(b"x" * 3 * peers.LONGEST_LINE)
        return connection

    together(2, act)
    until(lambda: exits == [EXIT_PEER_FAILED])
    assert "rank 1 (elsewhere) died starting" in capsys.readouterr().err


@pytest.mark.parametrize("behind", [0, 1])
def test_a_rank_that_keeps_the_others_waiting_is_found(exits, capsys, behind):
    ranks = joined(3, stall_timeout_s=1.0)
    for number, rank in enumerate(ranks):
        rank.report_task("in epoch 1, step 4, reading images")
        if number != behind:
            rank.report_task("in epoch 1, step 4")
    until(lambda: exits == [EXIT_PEER_FAILED] * 3)
    said = capsys.readouterr().err
    for number in range(3):
        cause = f"all ranks wait for rank {behind} ({HOST}), in epoch 1, step 4, reading images, for 1 s"
        assert f"error: rank {number} stops: {cause}" in said


def test_ranks_at_one_and_the_same_long_work_do_not_hang(exits):
    ranks = joined(2, stall_timeout_s=0.5)
    for rank in ranks:
        rank.report_task("in epoch 1, step 1")  # compiling, perhaps
    time.sleep(1.5)
    assert exits == []


def test_a_rank_that_has_more_to_do_is_not_taken_for_hanging(exits):
    ranks = joined(2, stall_timeout_s=0.5)
    ranks[1].report_task("adding up")  # and waits for rank 0
    for _ in range(15):
        report_activity()
        time.sleep(0.1)
    assert exits == []
    until(lambda: exits)  # it stops working


def test_ranks_wait_for_the_slowest_however_long_it_works_and_no_longer(exits):
    ranks = joined(3, stall_timeout_s=0.5)
    come: list[int] = []

    def meet(number):
        for _ in range(3):
            ranks[number].wait_for_ranks()
            come.append(number)

    threads = [threading.Thread(target=meet, args=(number,)) for number in (0, 2)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        report_activity()
        time.sleep(0.1)
    assert come == []
    ranks[1].wait_for_ranks()
    until(lambda: sorted(come) == [0, 2])
    assert exits == []
    ranks[1].wait_for_ranks()
    ranks[1].wait_for_ranks()
    until(lambda: sorted(come) == [0, 0, 0, 2, 2, 2])
    for thread in threads:
        thread.join(10)
    ranks[1].close()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_nobody_waits_for_a_rank_that_is_lost(exits, lost):
    ranks = joined(3)
    others = [rank for number, rank in enumerate(ranks) if number != lost]
    threads = [threading.Thread(target=rank.wait_for_ranks) for rank in others]
    for thread in threads:
        thread.start()
    ranks[lost].fail("it has no more memory")
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    until(lambda: all(rank.lost for rank in others))  # the waiting ends with the connection, a moment before


def test_long_reasons_in_any_script_arrive(exits, capsys):
    ranks = joined(3)
    ranks[1].fail("图" * 20_000 + "\udcff the end")  # with a byte of a file's name that is no text
    until(lambda: len(exits) == 2)
    assert capsys.readouterr().err.count("图? the end") == 2


def test_a_rank_that_cannot_connect_is_told(exits, caplog, monkeypatch):
    monkeypatch.setattr(peers, "_connect", lambda rank, **invitation: None)
    first, _ = joined(2)
    assert "No heartbeats of rank 1" in caplog.text
    assert first.where() == ""


def test_in_an_elastic_run_the_heartbeats_break_what_others_wait_in_and_end_only_a_rank_that_hangs(exits):
    broken = []

    def act(rank, gather):
        return join_heartbeats(rank, ["127.0.0.1"], gather, 30.0, 1.0, lambda: broken.append(rank))

    ranks = together(3, act)
    for number, rank in enumerate(ranks):
        rank.report_task("in epoch 1, step 4, reading images")
        if number != 2:
            rank.report_task("in epoch 1, step 4")
    until(lambda: sorted(broken) == [0, 1])
    assert ranks[0].lost
    assert ranks[1].cause(0).startswith(f"all ranks wait for rank 2 ({HOST})")  # its main thread goes on
    ranks[0].cause(0)
    until(lambda: exits == [EXIT_PEER_FAILED])
    for rank in ranks:
        rank._thread.join(10)
    assert exits == [EXIT_PEER_FAILED]  # rank 2 alone
    assert not any(rank.final for rank in ranks)


def test_in_an_elastic_run_a_main_thread_that_does_not_notice_is_ended(exits):
    ranks = together(2, lambda rank, gather: join_heartbeats(rank, ["127.0.0.1"], gather, 30.0, 1.0, lambda: None))
    ranks[1].fail("told")
    until(lambda: ranks[0].lost)
    assert exits == []
    until(lambda: exits == [EXIT_PEER_FAILED])  # after the stall time-out


def test_a_final_failure_ends_an_elastic_run_too(exits, capsys):
    broken = []
    ranks = together(
        3, lambda rank, gather: join_heartbeats(rank, ["127.0.0.1"], gather, 30.0, 300.0, lambda: broken.append(rank))
    )
    ranks[2].fail("image 3 is broken", final=True)
    until(lambda: exits == [EXIT_PEER_FAILED] * 2)
    assert ranks[0].final
    assert ranks[1].final
    assert broken == []
    assert f"rank 1 stops: rank 2 ({HOST}) failed starting: image 3 is broken" in capsys.readouterr().err
