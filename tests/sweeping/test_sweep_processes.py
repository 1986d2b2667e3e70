"""Jobs run in parallel after those that they need; a failure, or a request to stop, stops the others."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest

from tfinpaint.errors import StoppedError, UserError
from tfinpaint.sweeping.processes import Job, Slot, make_slots, run_jobs, run_on_terminal
from tfinpaint.system.hardware import Gpu, Machine

CORES = tuple(os.sched_getaffinity(0))
MACHINE = Machine("", "", (), 8, 8, None, 2**36, None, 0, ())


def job(folder, name: str, code: str, *, needs=()) -> Job:
    """A job that runs some Python, and is done when a file of its name is there."""
    return Job(
        name, lambda: (sys.executable, "-c", f"from pathlib import Path; {code}"),
        lambda _: (folder / name).exists(), folder / f"{name}.log", 1.0, needs=needs,
    )  # fmt: skip


def touch(folder, name: str) -> str:
    return f"Path({str(folder / name)!r}).touch()"


def test_jobs_run_at_the_same_time_after_those_that_they_need(tmp_path):
    ended = []
    wait = "import time; [time.sleep(0.02) for _ in range(500) if not Path({!r}).exists()]; "
    # Each of the first two waits for the other.
    first = job(
        tmp_path, "first", touch(tmp_path, "a") + "; " + wait.format(str(tmp_path / "b")) + touch(tmp_path, "first")
    )
    second = job(
        tmp_path, "second", touch(tmp_path, "b") + "; " + wait.format(str(tmp_path / "a")) + touch(tmp_path, "second")
    )
    check = f"assert Path({str(tmp_path / 'first')!r}).exists() and Path({str(tmp_path / 'second')!r}).exists(); "
    last = job(tmp_path, "last", check + touch(tmp_path, "last"), needs=(first, second))
    run_jobs([last, first, second], [Slot(CORES), Slot(CORES)], lambda job: ended.append(job.title))
    assert set(ended[:2]) == {"first", "second"}
    assert ended[2:] == ["last"]


def test_a_process_has_the_cores_and_the_gpu_of_its_slot(tmp_path):
    code = (
        "import os, time; time.sleep(0.3); "
        "print(sorted(os.sched_getaffinity(0)), os.environ['CUDA_VISIBLE_DEVICES']); " + touch(tmp_path, "a")
    )
    run_jobs([job(tmp_path, "a", code)], [Slot(CORES[:1], "GPU-7")], lambda _: None)
    assert (tmp_path / "a.log").read_text() == f"[{CORES[0]}] GPU-7\n"


def test_a_process_on_the_terminal_prints_there_and_gets_the_signals_that_come(capfd):
    command = (sys.executable, "-c", "print('seen'); exit(3)")
    assert run_on_terminal(command, Slot(CORES)) == (3, 0)
    assert capfd.readouterr().out == "seen\n"
    waits = (
        "import os, signal, time; [signal.signal(n, lambda n, _: os._exit(n)) for n in (2, 15)]; "
        "os.kill(os.getppid(), {}); time.sleep(60)"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        assert run_on_terminal((sys.executable, "-c", waits.format(int(number))), Slot(CORES)) == (number, number)
        assert signal.getsignal(number) is before


def test_a_process_that_ignores_ctrl_c_is_ended_when_it_was_pressed_often():
    deaf = (
        "import os, signal, time; signal.signal(2, signal.SIG_IGN); "
        "[(os.kill(os.getppid(), 2), time.sleep(0.2)) for _ in range(300)]"
    )
    assert run_on_terminal((sys.executable, "-c", deaf), Slot(CORES)) == (-signal.SIGKILL, signal.SIGINT)


def test_a_job_that_fails_is_named_with_its_reason_and_stops_the_others(tmp_path):
    code = "import sys; print('a line'); sys.exit('error: the disk is full')"
    slow = "import time; Path({!r}).touch(); time.sleep(60)".format(str(tmp_path / "begun"))
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^bad: failed: the disk is full \(.*bad.log has its whole output\)"):
        run_jobs([job(tmp_path, "slow", slow), job(tmp_path, "bad", code)], [Slot(CORES), Slot(CORES)], lambda _: None)
    assert time.monotonic() - began < 30  # it did not wait for the slow one


def test_a_job_that_cannot_begin_ends_the_others_first(tmp_path):
    def refuse():
        raise UserError("nothing to choose from")

    first, refused, last = (job(tmp_path, name, touch(tmp_path, name)) for name in ("first", "refused", "last"))
    ended = []
    with pytest.raises(UserError, match="nothing to choose from"):
        run_jobs([first, replace(refused, begin=refuse), last], [Slot(CORES)], lambda job: ended.append(job.title))
    assert ended == ["first", "last"]


def test_the_reason_is_that_of_the_last_attempt(tmp_path):
    for reason in ("the disk is full", "the file is missing"):
        bad = job(tmp_path, "bad", f"import sys; sys.exit('error: {reason}')")
        with pytest.raises(UserError, match=f"^bad: failed: {reason} "):
            run_jobs([bad], [Slot(CORES)], lambda _: None)
    assert (tmp_path / "bad.log").read_text() == "error: the disk is full\nerror: the file is missing\n"


def test_a_process_that_a_scheduler_stops_with_its_parent_has_not_failed(tmp_path):
    """A scheduler sends SIGTERM to all processes of its job, some of which end before the sweep stops them."""
    code = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)"
    with pytest.raises(StoppedError) as stopped:
        run_jobs([job(tmp_path, "a", code)], [Slot(CORES)], lambda _: None)
    assert stopped.value.exit_code == 0


def test_a_request_to_stop_is_passed_on(tmp_path, capfd):
    saves = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (Path({!r}).touch(), sys.exit(0))); "
        "Path({!r}).touch(); time.sleep(60)"
    ).format(str(tmp_path / "saved"), str(tmp_path / "begun"))

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(StoppedError) as stopped:
        run_jobs([job(tmp_path, "a", saves), job(tmp_path, "b", saves)], [Slot(CORES)], lambda _: None)
    assert (str(stopped.value), stopped.value.exit_code) == ("The runs have stopped", 130)
    notice = "Interrupted: the runs are saved and stop. Press Ctrl-C again to end them now, unsaved."
    assert capfd.readouterr().err == f"\n{notice}\n"
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "b.log").exists()


def test_the_machine_is_divided_among_workers(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(10, 18)))
    monkeypatch.setattr("tfinpaint.sweeping.processes.available_memory", lambda: 10 * 2**30)
    assert [slot.cores for slot in make_slots(4, MACHINE)] == [(10, 11), (12, 13), (14, 15), (16, 17)]
    assert [slot.cores for slot in make_slots(None, MACHINE)] == [(10, 11), (12, 13, 14), (15, 16, 17)]  # by memory
    assert [slot.cores for slot in make_slots(1, replace(MACHINE, core_limit=2.5))] == [(10, 11)]
    with pytest.raises(UserError, match="--workers 5: this machine has 8 cores, 2 for each worker; give at most 4"):
        make_slots(5, MACHINE)
    gpus = replace(MACHINE, gpus=(Gpu("A", 1, 8.0),) * 4)
    assert [slot.gpu for slot in make_slots(None, gpus)] == ["0", "1", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [slot.gpu for slot in make_slots(None, gpus)] == ["2", "3"]
    with pytest.raises(UserError, match="--workers 3: this machine has 2 GPUs, one for each worker"):
        make_slots(3, gpus)
