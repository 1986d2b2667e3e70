"""Of the lines that ranks and launcher print, a user sees those of rank 0 and, once, why the ranks have failed."""

import io
import sys

import pytest

from tfinpaint.distributed.rank_output import CLEAR_LINE, RankOutput

NOTICES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795576013.884669    3253 port.cc:153] oneDNN custom operations are on.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate flags.
"""
AT_END = """\
--------------------------------------------------------------------------
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-node1-1906@1,0]
   Exit code:    2
--------------------------------------------------------------------------
"""
OF_GLOO = """\
Process 0 exit with status code 2.
Terminating remaining workers after failure of Process 0.
RuntimeError: Horovod detected that one or more processes exited with non-zero status, thus causing the job to be \
terminated. The first process to do so was:
Process name: 0
Exit code: 2
"""


def show(printed: str, *, failed: bool = False, beside_bar: bool = False) -> RankOutput:
    output = RankOutput(beside_bar=beside_bar)
    for line in printed.splitlines(keepends=True):
        output.add(line)
    if failed:
        output.explain_failure()
    return output


@pytest.mark.parametrize("tag", ["[1,{}]<{}>: ", "[{}]<{}>:"])
def test_lines_of_rank_0_come_plain_and_in_their_order(capsys, tag):
    first, errors, second = tag.format(0, "stdout"), tag.format(0, "stderr"), tag.format(1, "stdout")
    tagged = f"{first}Run folder: runs/a\r\n{errors}I0000 00:00:17.8 1 x.cc:1] notice\n{first}  epoch 1/2 step 3/4\n"
    show(NOTICES + tagged + f"{second}rank 1: a warning\n{errors}UserWarning: careful\n")
    shown = capsys.readouterr()
    assert shown.out == "Run folder: runs/a\n  epoch 1/2 step 3/4\nrank 1: a warning\n"
    assert shown.err == "UserWarning: careful\n"


@pytest.mark.parametrize("launcher", [AT_END, OF_GLOO])
def test_an_error_that_all_ranks_meet_is_shown_once(capsys, launcher):
    both = "[1,0]<stderr>: error: no such folder\n[1,1]<stderr>: rank 1: error: no such folder\n"
    assert show(NOTICES + both + launcher, failed=True).exit_code == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "error: no such folder\n")


def test_an_error_of_another_rank_is_shown_where_rank_0_says_nothing(capsys):
    printed = "[1,0]<stderr>: UserWarning: careful\n[1,1]<stderr>: rank 1: error: no such folder\n"
    show(printed + AT_END, failed=True)
    assert capsys.readouterr().err == "UserWarning: careful\nrank 1: error: no such folder\n"


def test_what_the_launcher_says_is_shown_where_no_rank_says_anything(capsys):
    output = show(NOTICES + "\nssh: Could not resolve hostname node2\n" + "-" * 70 + "\n", failed=True)
    assert capsys.readouterr().err == "ssh: Could not resolve hostname node2\n"
    assert output.exit_code is None


def test_the_traceback_of_another_rank_is_shown_beside_what_rank_0_says_of_it(capsys):
    printed = "[1,1]<stderr>: rank 1: Traceback (most recent call last):\n[1,1]<stderr>: ValueError: a bug\n"
    stops = "[1,0]<stderr>: error: rank 0 stops: rank 1 has failed: ValueError: a bug\n"
    show(printed + stops + AT_END, failed=True)
    assert capsys.readouterr().err == (
        "error: rank 0 stops: rank 1 has failed: ValueError: a bug\n"
        "rank 1: Traceback (most recent call last):\nValueError: a bug\n"
    )
    own = "[1,0]<stderr>: Traceback (most recent call last):\n[1,0]<stderr>: ValueError: a bug\n"
    show(own + printed + AT_END, failed=True)  # a bug that all ranks meet
    assert capsys.readouterr().err == "Traceback (most recent call last):\nValueError: a bug\n"


def test_a_line_beside_a_bar_clears_it_first(capsys, monkeypatch):
    line = "[1,0]<stderr>: UserWarning: careful\n"
    show(line, beside_bar=True)
    assert capsys.readouterr().err == "UserWarning: careful\n"  # of a file, which holds no codes of a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show(line, beside_bar=True)
    assert capsys.readouterr().err == "\r\x1b[2KUserWarning: careful\n"


def test_a_line_and_its_end_reach_the_terminal_in_one_piece(monkeypatch):
    """Rank 0 writes to the same terminal, and its line would come between them."""
    written = []

    class Terminal(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def isatty(self) -> bool:
            return True

        def write(self, data) -> int:
            written.append(bytes(data).decode())
            return len(data)

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(Terminal(), encoding="utf-8", line_buffering=True))
    show("[1,0]<stderr>:Interrupted\n", beside_bar=True)
    assert written == [f"{CLEAR_LINE}Interrupted\n"]
