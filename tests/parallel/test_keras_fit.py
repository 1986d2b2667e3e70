"""`model.fit` with `tfinpaint.distributed` trains on two ranks as on one (keras_fit_cases.py has the models)."""

import json

import numpy as np
import pytest
from keras_fit_cases import CASES

from tfinpaint.distributed import World

pytestmark = pytest.mark.parallel


def run(session, folder, *names):
    """Run cases on two ranks; return for each what both ranks have."""
    for name in names:
        session.run("keras_fit_cases", folder, name)
    return {name: [dict(np.load(folder / f"{name}.{rank}.npz")) for rank in (0, 1)] for name in names}


@pytest.fixture(scope="module")
def default_cases(tmp_path_factory, mpi):
    names = ("plain", "everything", "half_precision", "bfloat16", "several_steps", "eager", "random_layers", "told")
    return run(mpi, tmp_path_factory.mktemp("cases"), *names, "stock")


def trained(found):
    """All weights and states but those of random numbers, which are each rank's own."""
    return {name: values for name, values in found.items() if name.isdigit()}


def largest_difference(ours, theirs):
    ours, theirs = trained(ours), trained(theirs)
    assert ours.keys() == theirs.keys()
    return max(np.abs(ours[name] - theirs[name]).max() for name in ours)


def assert_equal_bytes(ranks):
    first, second = map(trained, ranks)
    assert len(first) > 4
    assert {name: first[name].tobytes() for name in first} == {name: second[name].tobytes() for name in second}


def assert_equal_logs(ours, theirs):
    ours, theirs = json.loads(str(ours["logs"])), json.loads(str(theirs["logs"]))
    assert ours.keys() == theirs.keys() >= {"loss", "accuracy", "r2", "val_loss", "val_accuracy", "val_r2"}
    for name in theirs:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), name


def check(case, ranks, tolerance):
    assert_equal_bytes(ranks)
    one = CASES[case](World())
    assert largest_difference(ranks[0], one) <= tolerance
    assert_equal_logs(ranks[0], one)
    assert ranks[0]["logs"] == ranks[1]["logs"]


def test_two_ranks_train_as_one_under_xla(default_cases):
    check("plain", default_cases["plain"], 1e-6)


def test_accumulation_clipping_and_averages_see_averaged_gradients(default_cases):
    check("everything", default_cases["everything"], 1e-6)


def test_both_ranks_leave_out_a_step_in_which_one_of_them_overflows(default_cases):
    ranks = default_cases["half_precision"]
    assert_equal_bytes(ranks)
    one = CASES["half_precision"](World())
    ours, theirs = trained(ranks[0]), trained(one)
    assert 2.0**15 / 4 in {float(values) for values in ours.values() if values.size == 1}  # halved once an epoch
    assert largest_difference(ours, theirs) <= 1e-3  # each rank rounds its own gradients to 11 bits


@pytest.mark.parametrize("case", ["several_steps", "eager"])
def test_steps_may_be_taken_together_or_eagerly(default_cases, case):
    check(case, default_cases[case], 1e-6)


def test_weights_and_statistics_in_bfloat16_are_equal_on_both_ranks(default_cases):
    ranks = default_cases["bfloat16"]
    assert_equal_bytes(ranks)
    assert ranks[0]["logs"] == ranks[1]["logs"]


def test_moving_statistics_end_equal_and_dropout_differs(default_cases):
    ranks = default_cases["random_layers"]
    assert_equal_bytes(ranks)
    first, second = ([int(rank[name][0]) for name in rank if name.startswith("seed_")] for rank in ranks)
    assert second == [seed + 1 for seed in first]
    assert len(first) == 1
    assert ranks[0]["logs"] == ranks[1]["logs"]


def test_what_is_forgotten_is_said(default_cases):
    for rank, texts in enumerate(default_cases["told"]):
        texts = {name: str(text) for name, text in texts.items()}
        assert (
            "rank 1 begins with other weights than rank 0 (4 of 4 differ, the first is" in texts["forgotten broadcast"]
        )
        assert "pass SynchroniseRanks(world) to fit" in texts["forgotten broadcast"], rank
        assert "rank 1 holds other values than rank 0 after epoch 1, in 1 of 6 weights" in texts["meddled"]
        assert "learning_rate" in texts["meddled"]
        assert "rank 1 has 2 steps and rank 0 has 1" in texts["uneven"]
        assert "the data of rank 1 begins with another example than that of rank 0" in texts["other data"]


def test_ranks_with_the_wrapper_of_horovod_drift_apart(default_cases):
    first, second = default_cases["stock"]
    assert largest_difference(first, second) > 1e-3


@pytest.mark.stress
def test_all_cases_under_gloo(tmp_path, gloo):
    names = ("plain", "everything", "synchronised", "own_step", "random_layers", "half_precision", "told")
    found = run(gloo, tmp_path, *names, "several_steps", "bfloat16", "mixed_bfloat16")
    check("plain", found["plain"], 1e-6)
    check("everything", found["everything"], 1e-6)
    assert_equal_bytes(found["random_layers"])
    check("synchronised", found["synchronised"], 1e-6)
    assert_equal_bytes(found["own_step"])
    assert json.loads(str(found["own_step"][0]["logs"]))["rank"] == [0.5, 0.5]
    check("several_steps", found["several_steps"], 1e-6)
    assert_equal_bytes(found["bfloat16"])
    assert_equal_bytes(found["mixed_bfloat16"])
    one = CASES["mixed_bfloat16"](World())
    assert largest_difference(found["mixed_bfloat16"][0], one) <= 1e-2  # each rank rounds its own gradients to 8 bits
    assert "pass SynchroniseRanks(world) to fit" in str(found["told"][1]["forgotten broadcast"])
