"""Standard streams that cannot be written, or that are not there, end no command and lose no epoch."""

import errno
import io
import logging
import os
import subprocess
import sys

import pytest
from conftest import ROOT, outcome, write_small, write_training_and_testing

from tfinpaint.classify import main as classify
from tfinpaint.cli import command as cli
from tfinpaint.system import streams


def broken_pipe() -> streams.LenientStream:
    """A stream into a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return streams.LenientStream(os.fdopen(write, "wb"), encoding="utf-8", line_buffering=True)


def full_disk() -> streams.LenientStream:
    return streams.LenientStream(
        os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"), encoding="utf-8", line_buffering=True
    )


@pytest.mark.stress
def test_training_goes_on_without_a_reader(tmp_path, monkeypatch):
    data = write_training_and_testing(tmp_path)
    for name in ("read", "unread"):
        config = write_small(tmp_path / name, data, num_epochs=2)
        with monkeypatch.context() as patch:
            if name == "unread":
                patch.setattr(sys, "stdout", broken_pipe())
                patch.setattr(sys, "stderr", full_disk())
            assert classify(["--config", str(config)]) == 0
    assert outcome(tmp_path / "unread" / "run") == outcome(tmp_path / "read" / "run")


@pytest.mark.parametrize(
    ("make", "told"),
    [(broken_pipe, ""), (full_disk, "warning: standard output: No space left on device; what follows is not shown\n")],
)
def test_what_cannot_be_written_is_dropped_and_a_full_disk_told_once(make, told, monkeypatch, capfd):
    stream = make()
    monkeypatch.setattr(sys, "stdout", stream)
    for _ in range(3):
        print("lost")
    os.write(stream.fileno(), b"what a library in C prints is dropped too")
    stream.close()
    assert capfd.readouterr() == ("", told)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENXIO, errno.ECONNRESET])
def test_a_terminal_that_has_been_closed_is_no_failure(number, monkeypatch, capfd):
    class Closed(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def fileno(self) -> int:
            return unused

        def write(self, data) -> int:
            raise OSError(number, os.strerror(number))

    unused = os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr(sys, "stdout", streams.LenientStream(Closed(), encoding="utf-8", write_through=True))
    print("lost", flush=True)
    assert streams.failure_of_output() == ""
    os.close(unused)
    assert capfd.readouterr() == ("", "")


def test_a_pipe_that_somebody_has_made_non_blocking_is_written_to_the_end():
    read, write = os.pipe()
    os.set_blocking(write, False)
    lines = "".join(f"{number}\n" for number in range(20_000))  # more than a pipe holds
    reader = subprocess.Popen(["sh", "-c", "sleep 0.2; cat"], stdin=read, stdout=subprocess.PIPE)
    os.close(read)
    with streams.LenientStream(os.fdopen(write, "wb"), encoding="utf-8") as stream:
        for line in lines.splitlines(keepends=True):
            stream.write(line)
    received = reader.communicate()[0].decode()
    assert received.endswith("\n19999\n")
    assert len(lines) - len(received) < 8192  # of the one buffer that could not wait


def test_streams_of_others_are_left_alone(monkeypatch):
    theirs = io.StringIO()
    monkeypatch.setattr(sys, "stdout", theirs)
    streams.make_lenient()
    assert sys.stdout is theirs


def test_a_line_is_written_at_once_where_python_is_unbuffered_too(monkeypatch):
    """Otherwise the line of another process with the same terminal may come between it and its end."""
    written = []

    class Recorder(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            written.append(bytes(data))
            return len(data)

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Recorder(), encoding="utf-8", write_through=True))
    streams.make_lenient()
    print("a line")
    assert written == [b"a line\n"]


def test_log_lines_go_where_standard_output_goes_now(monkeypatch):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        cli.log_to_stdout(0)
        for number in range(2):
            monkeypatch.setattr(sys, "stdout", output := io.StringIO())
            logging.getLogger("tfinpaint").info("line %d", number)
            assert output.getvalue() == f"line {number}\n"
    finally:
        root.handlers, root.level = handlers, level


@pytest.mark.parametrize(("arguments", "code"), [("tfinpaint --help", 0), ("tfinpaint.prepare missing elsewhere", 2)])
def test_short_commands_end_quietly(arguments, code, tmp_path):
    """Without a reader, without streams, without docstrings. Where their output is lost on a full disk, they say so."""
    python = f"{sys.executable} -OO -m {arguments}"
    unread = f"{python} 2>&3 | head -0; echo code ${{PIPESTATUS[0]}}"
    closed = f"{python} >&- 2>&3 <&-; echo code $?"
    full = f"{python} >/dev/full 2>&3; echo code $?"
    told = "error: missing: " if "missing" in arguments else ""
    for command, codes in ((unread, {code}), (closed, {code}), (full, {code, 2})):
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&2; {command}"], capture_output=True, text=True, cwd=tmp_path, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.stdout.startswith("code "), done
        assert int(done.stdout.split()[1]) in codes
        assert "Traceback" not in done.stderr
        if command is not full:
            assert done.stderr.startswith(told)
            assert done.stderr.count("\n") == bool(told)
        elif not told:
            assert "standard output: No space left on device" in done.stderr
