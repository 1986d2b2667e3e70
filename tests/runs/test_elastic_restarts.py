"""What a command's body sees of an elastic run, without ranks: attempts, options, refusals."""

import json
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import write_config

from tfinpaint.cli.options import parse_options
from tfinpaint.config.checks import fitting_ranks
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.distributed import failures, rendezvous, restart
from tfinpaint.distributed import world as dist
from tfinpaint.distributed.failures import HostsChangedError, RankLostError, loss_to_survive
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.runs import elastic
from tfinpaint.runs.elastic import FRUITLESS_RESTARTS, History, run_elastic
from tfinpaint.runs.run import Run
from tfinpaint.runs.saving import end_run_if_asked
from tfinpaint.runs.signals import StopRequest
from tfinpaint.train.step import ControlFlags


@pytest.fixture
def options(images, tmp_path):
    return parse_options("pretrain", ["--config", str(write_config(tmp_path / "p.yaml", "pretrain", images))])


@pytest.fixture
def launcher(monkeypatch):
    """`elastic.run` under a launcher of one rank: yields what returns how often the process was started, and its environments."""
    environments = [{}]
    monkeypatch.setattr(rendezvous, "is_elastic", lambda: True)
    monkeypatch.setattr(rendezvous, "ask_for_place", lambda: {"HOROVOD_RANK": "0"})
    monkeypatch.setattr(elastic, "join_ranks", lambda *_: dist.World())

    class Executed(BaseException):
        pass

    def execute(program, arguments, environment):
        assert [program, *arguments[1:]] == [sys.executable, *sys.orig_argv[1:]]
        environments.append(environment)
        raise Executed

    monkeypatch.setattr(restart.os, "execve", execute)

    def run(body, options):
        while True:
            monkeypatch.setenv(elastic.HISTORY, environments[-1].get(elastic.HISTORY, "{}"))
            try:
                run_elastic(body, options)
                return environments
            except Executed:
                pass

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield run
    root.handlers[:] = handlers  # or later tests would print what is logged
    root.setLevel(level)


def save(options, epoch):
    """What counts as a checkpoint."""
    folder = options.config.checkpoints.save / f"model_checkpoint_{epoch}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint.json").write_text("{}")


class Ranks(dist.World):
    """Rank 0 of several, the others of which say what the test lets them say."""

    def __init__(self, *others, size=2):
        super().__init__()
        self.size, self.others = size, others

    def all_gather(self, value):
        return json.loads(json.dumps([value, *self.others]))


def test_a_run_that_is_not_elastic_runs_once_and_its_errors_are_its_own(options, launcher, monkeypatch):
    monkeypatch.setattr(rendezvous, "is_elastic", lambda: False)
    seen = []

    def body(given, world):
        seen.append(given)
        raise RankLostError

    with pytest.raises(RankLostError):
        launcher(body, options)
    assert seen == [options]


@pytest.mark.parametrize("error", [UserError("a broken image"), ValueError("x"), KeyboardInterrupt(), SystemExit(4)])
def test_every_other_error_comes_through_unchanged(options, launcher, error):
    seen = []

    def body(given, world):
        seen.append(given)
        raise error

    with pytest.raises(type(error)) as raised:
        launcher(body, options)
    assert raised.value is error
    assert len(seen) == 1


def test_the_body_runs_again_and_goes_on_only_with_what_this_run_has_saved(options, launcher, monkeypatch):
    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "7")  # the user's
    save(options, 7)  # of an earlier run, which --overwrite gives up
    options = replace(options, overwrite=True)
    seen = []

    def body(given, world):
        monkeypatch.setenv("HOROVOD_TIMELINE", "timeline.json")  # as `dist.start` does
        seen.append((given.resume, given.overwrite))
        if len(seen) == 1:
            raise RankLostError
        if len(seen) == 2:
            save(options, 8)
            raise HostsChangedError

    monkeypatch.delenv("HOROVOD_TIMELINE", raising=False)
    environments = launcher(body, options)
    assert seen == [(False, True), (False, True), (True, False)]
    assert "HOROVOD_TIMELINE" not in environments[1]
    assert (environments[2]["HOROVOD_CYCLE_TIME"], environments[2]["HOROVOD_RANK"]) == ("7", "0")
    assert json.loads(environments[2][elastic.HISTORY])["happened"] == "Hosts were added or removed"


def test_a_run_gives_up_where_it_gets_no_further(options, launcher):
    seen = []

    def body(given, world):
        seen.append(given)
        if len(seen) == 3:
            save(options, 1)
        raise RankLostError

    with pytest.raises(UserError, match=rf"{FRUITLESS_RESTARTS + 1} times without a checkpoint .* A rank was lost"):
        launcher(body, options)
    assert len(seen) == 3 + 1 + FRUITLESS_RESTARTS


def test_a_process_without_a_place_ends_in_peace(options, launcher, monkeypatch, capsys):
    def dismiss():
        raise rendezvous.DismissedError("The run continues without this process")

    def body(given, world):
        raise HostsChangedError

    monkeypatch.setattr(rendezvous, "ask_for_place", dismiss)
    assert launcher(body, options) == [{}]
    assert "The run continues without this process" in capsys.readouterr().out


def test_a_rank_that_joins_later_takes_the_history_of_the_others(options):
    save(options, 3)
    newest = elastic.newest_checkpoint(options.config)
    others = vars(History(restarts=2, fruitless=1, first=None, newest="model_checkpoint_2 1", ranks=1))
    history = elastic.agree(History(), Ranks(others), options.config)
    assert history == History(restarts=2, fruitless=0, first=None, newest=newest, ranks=2)
    assert elastic.options_after(history, options).resume


def test_all_new_ranks_make_a_new_history(options, caplog):
    caplog.set_level("INFO")
    assert elastic.agree(History(), Ranks(vars(History())), options.config) == History(ranks=2)
    assert "the batches can be shared by 1, 2, 4 ranks" in caplog.text


def test_a_number_of_ranks_that_cannot_share_the_batch_is_refused(options):
    others = vars(History(restarts=1, ranks=4))
    with pytest.raises(UserError, match=r"4 ranks are now 3: data.batch_size 8 .* numbers that fit: 1, 2, 4$"):
        elastic.agree(History(), Ranks(others, size=3), options.config)
    with pytest.raises(UserError, match=r"^3 ranks: data.batch_size 8 .* numbers that fit: 1, 2, 4$"):
        elastic.agree(History(), Ranks(vars(History()), vars(History()), size=3), options.config)


class EndedBySignalError(Exception):
    """Is raised where a process would end by a signal."""


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, [True, False]), (signal.SIGUSR1, [True, True])])
def test_a_rank_that_is_told_to_stop_alone_leaves_and_the_others_go_on(monkeypatch, number, told):
    monkeypatch.setattr(rendezvous, "is_elastic", lambda: True)
    names = [signal.Signals(number).name if each else "" for each in told]
    world, run = SimpleNamespace(all_gather=lambda own: names), Run(Config(workdir=Path("run")), "inpainter")

    def end(ending: int) -> None:
        assert (ending, signal.getsignal(ending)) == (number, signal.SIG_DFL)
        raise EndedBySignalError

    def rank(index):
        stop = StopRequest()
        with stop.listening(), monkeypatch.context() as patch:
            if told[index]:
                os.kill(os.getpid(), number)
            patch.setattr(signal, "raise_signal", end)
            end_run_if_asked(ControlFlags(stop=True), "in epoch 1, after step 2", run, world, stop)

    expected = [StoppedError, StoppedError] if all(told) else [EndedBySignalError, HostsChangedError]
    for index, error in enumerate(expected):
        with pytest.raises(error):
            rank(index)


@pytest.mark.parametrize(
    ("resume", "history", "expected"),
    [
        (False, History(), (False, False)),
        (True, History(first="a 1", newest="a 1"), (True, False)),
        (False, History(restarts=1), (False, True)),  # nothing saved: what lies there was made by this run
        (False, History(restarts=1, first="a 1", newest="a 1"), (False, True)),  # or is what it may overwrite
        (False, History(restarts=1, first="a 1"), (False, True)),  # which it has begun to do
        (False, History(restarts=1, first="a 1", newest="a 2"), (True, False)),
        (True, History(restarts=1, first="a 1", newest="a 1"), (True, False)),
        (True, History(restarts=1), (True, False)),
    ],
)
def test_options_after_a_reset(options, resume, history, expected):
    given = elastic.options_after(history, replace(options, resume=resume))
    assert (given.resume, given.overwrite) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoints__save": None}, "set checkpoints.save"),
        ({"data__batch_size_per_rank": True}, "set data.batch_size_per_rank: false"),
    ],
)
def test_what_an_elastic_run_cannot_have(images, tmp_path, launcher, changes, message):
    config = write_config(tmp_path / "p.yaml", "pretrain", images, **changes)
    with pytest.raises(ConfigError, match=message):
        launcher(lambda *_: pytest.fail("was run"), parse_options("pretrain", ["--config", str(config)]))


def test_numbers_of_ranks_that_fit(options):
    data = options.config.data.model_copy(update={"batch_size": 24, "test_batch_size": 36})
    config = options.config.model_copy(update={"data": data, "accumulate_steps": 2})
    assert fitting_ranks(config) == [1, 2, 3, 4, 6, 12]


def test_broken_collectives_are_told_from_errors(monkeypatch):
    lost = SimpleNamespace(final=False, where=lambda: "", cause=lambda wait_s: "rank 1 died")
    monkeypatch.setattr(failures, "_heartbeat", lost)
    assert loss_to_survive(RankLostError()) == "rank 1 died"
    assert loss_to_survive(ValueError("Horovod has not been initialized; use hvd.init().")) == "rank 1 died"
    assert loss_to_survive(ValueError("Horovod")) is None
    assert loss_to_survive(UserError("Horovod cannot be imported")) is None
    assert loss_to_survive(HostsChangedError()) == "Hosts were added or removed"
    lost.final = True
    assert loss_to_survive(RankLostError()) is None
    monkeypatch.setattr(failures, "_heartbeat", None)
    assert loss_to_survive(RankLostError()) == "A rank was lost while the ranks joined"
    assert loss_to_survive(ValueError("x")) is None
