"""The scaling model on numbers that can be worked out by hand."""

import json
import math
import sys
from dataclasses import replace

import pytest
from conftest import ROOT

from tfinpaint.errors import UserError

sys.path.append(str(ROOT / "scripts" / "scaling"))
import scaling_model as model

Cluster, Job, Link = model.Cluster, model.Job, model.Link

MB = 1e6
LINK = Link(latency_s=0.001, bandwidth_bytes_per_s=100 * MB)
FLAT = Cluster(LINK, LINK, ranks_per_host=1, cores_per_host=1)
# A step of 3 s at 10 images, whose only gradient is ready when the backward pass ends: nothing overlaps.
LATE = Job(1.0, 2.0, 0.0, 10, ((100 * MB, 1.0),))


def backward_s(*gradients: tuple[float, float], alone_s=1.0, s_per_mb=0.01, **changes) -> float:
    """With a cycle of 0.1 s, no negotiation, and s_per_mb seconds to reduce a MB."""
    settings = {"negotiation_s": 0.0, "cycle_s": 0.1, "fusion_bytes": 50 * MB, "taken": 0.0} | changes
    return model.backward(gradients, alone_s, lambda size: s_per_mb * size / MB, **settings).whole_s


def test_a_ring_of_four():
    # 2 * 3 messages; 2 * 3/4 of 80 MB over the link; 3/4 of them added up.
    assert model.ring_s(80 * MB, 4, LINK, 1000 * MB) == pytest.approx(0.006 + 1.2 + 0.06)


def test_halving_and_doubling_moves_as_much_in_fewer_messages():
    assert model.halving_doubling_s(80 * MB, 4, LINK, math.inf) == pytest.approx(0.004 + 1.2)
    assert model.halving_doubling_s(80 * MB, 2, LINK, math.inf) == model.ring_s(80 * MB, 2, LINK, math.inf)
    assert model.halving_doubling_s(0, 1024, LINK, math.inf) == pytest.approx(0.020)
    assert model.ring_s(0, 1024, LINK, math.inf) == pytest.approx(2.046)


def test_hosts_of_two():
    fast = Link(0.0001, 1000 * MB)
    pairs = replace(FLAT, within=fast, ranks_per_host=2, cores_per_host=2)
    assert pairs.all_reduce_s(100 * MB, 2) == pytest.approx(0.0002 + 0.1)
    # Four ranks: a lap has 2 hops of 1 ms and 2 of 0.1 ms, the all-reduce 6 hops; the slow link moves 150 MB.
    assert pairs.all_reduce_s(100 * MB, 4) == pytest.approx(6 * 0.00055 + 1.5)
    # In levels: 100 MB in the host as for two ranks; then 50 MB of each rank, 100 MB in all, between the hosts.
    levels = replace(pairs, algorithm="hierarchical")
    assert levels.all_reduce_s(100 * MB, 4) == pytest.approx(0.1002 + 0.002 + 1.0)
    eight = levels.all_reduce_s(100 * MB, 8) - replace(levels, algorithm="tree").all_reduce_s(100 * MB, 8)
    assert eight == pytest.approx(0.002)  # four hosts: 6 messages against 4


def test_agreeing_takes_longer_without_the_response_cache():
    pairs = replace(FLAT, within=Link(0.0001, math.inf), ranks_per_host=2, cores_per_host=2)
    assert pairs.negotiation_s(16) == pytest.approx(2 * (3 * 0.001 + 0.0001))
    assert replace(pairs, coordinator_s_per_rank=0.01).negotiation_s(16) == pytest.approx(0.0062 + 0.15)


@pytest.mark.parametrize(("ranks", "seconds"), [(2, 1.0 + 2 * 0.001), (4, 1.5 + 6 * 0.001)])
def test_nothing_overlaps(ranks, seconds):
    step = model.predict(LATE, FLAT, ranks)
    assert step.communication_s == pytest.approx(seconds)
    assert step.negotiation_s == pytest.approx(2 * math.log2(ranks) * 0.001)
    assert step.compute_s == 3.0
    assert step.waiting_s == 0.0
    whole = 3.0 + step.communication_s + step.negotiation_s
    assert step.images_per_s == pytest.approx(ranks * 10 / whole)
    assert step.efficiency == pytest.approx(3.0 / whole)


def test_one_rank_communicates_nothing():
    assert model.predict(LATE, replace(FLAT, cycle_s=0.7), 1).efficiency == 1.0


def test_all_but_the_tail_overlaps():
    # 50 MB ready at half time take 0.5 s and are hidden; the last 10 MB are not.
    assert backward_s((50 * MB, 0.5), (10 * MB, 1.0)) == pytest.approx(1.1)
    # Twice as slow they take 1 s: until 1.5, and only then the last 10 MB.
    assert backward_s((50 * MB, 0.5), (10 * MB, 1.0), s_per_mb=0.02) == pytest.approx(1.7)


def test_communication_waits_for_the_cycle():
    assert backward_s((10 * MB, 0.92), alone_s=1.0) == pytest.approx(1.1)  # wakes at 1.0
    assert backward_s((10 * MB, 0.92), alone_s=1.0, cycle_s=0.7) == pytest.approx(1.5)  # wakes at 0.7 and 1.4


def test_what_is_ready_in_one_cycle_is_fused_up_to_the_threshold():
    sizes = []
    gradients = [(20 * MB, 0.05), (20 * MB, 0.06), (20 * MB, 0.07), (90 * MB, 0.08), (1 * MB, 0.5)]
    settings = {"negotiation_s": 0.0, "cycle_s": 0.1, "fusion_bytes": 50 * MB, "taken": 0.0}
    model.backward(gradients, 1.0, lambda size: sizes.append(size / MB) or 0.0, **settings)
    assert sizes == [40, 20, 90, 1]


def test_a_processor_that_communicates_does_not_compute():
    # 50 MB take 0.5 s, in which the backward pass stands still or goes on at half speed; then it has the rest to do.
    assert backward_s((50 * MB, 0.5), taken=1.0) == pytest.approx(1.5)
    assert backward_s((50 * MB, 0.5), taken=0.5) == pytest.approx(1.25)


def test_ranks_that_take_turns_on_a_processor():
    crowded = replace(FLAT, ranks_per_host=4, cores_per_host=2, neighbour_slowdown=1.2, taken=1.0)
    step = model.predict(LATE, crowded, 4)
    assert step.compute_s == pytest.approx(3.0 * 2 * 1.2)
    assert step.communication_s == pytest.approx(2 * (1.5 + 0.006))
    whole = step.compute_s + step.communication_s + step.negotiation_s
    assert step.efficiency == pytest.approx(4 * 10 / whole / (2 * 10 / 3.0))  # of two processors


@pytest.mark.parametrize(("ranks", "expected"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (1000, 3.2414)])
def test_the_slowest_of_normal_step_times(ranks, expected):
    assert model.slowest_of(ranks) == pytest.approx(expected, abs=1e-4)
    waiting = model.predict(replace(LATE, noise=0.1), FLAT, ranks).waiting_s
    assert waiting == pytest.approx(0.1 * 3.0 * expected, abs=1e-3)


def test_efficiency_rises_with_bandwidth_and_with_compression():
    slow, fast = (replace(FLAT, between=Link(0.001, rate * MB)) for rate in (100, 400))
    job = replace(LATE, gradients=((30 * MB, 0.3), (30 * MB, 0.6), (40 * MB, 1.0)))
    for ranks in (2, 64, 1024):
        efficiencies = [model.predict(job, cluster, ranks).efficiency for cluster in (slow, fast)]
        assert efficiencies[0] < efficiencies[1]
        assert efficiencies[0] < model.predict(model.compressed(job), slow, ranks).efficiency


INPUTS = {
    "forward_s": 1.0,
    "backward_s": 2.0,
    "update_s": 0.5,
    "per_rank_batch": 7,
    "gradients": [[70e6, 1.0]],
    "step_noise_sigma": 0.0,
    "cores": 2,
    "neighbour_slowdown": 1.5,
    "latency_s": 0.001,
    "bandwidth_bytes_per_s": 140e6,
    "reduce_bytes_per_s": 350e6,
    "measured": {"1": 2.0, "2": 2.5, "4": 2.0},
    "networks": {},
}


def test_predictions_for_the_machine_that_was_measured():
    # Alone 3.5 s a step; beside a neighbour 5.25 s; on two ranks 70 MB take 0.5 s, 0.1 s to add up half of them and
    # 2 + 2 ms; four ranks on the two processors take 10.5 s, move and add half as much again, twice as slowly, in
    # 6 messages, and agree in 4.
    alone, two, four = model.calibration(model.Inputs.model_validate_json(json.dumps(INPUTS)))
    assert alone == (1, 2.0, pytest.approx(7 / 3.5))
    assert two == (2, 2.5, pytest.approx(14 / (5.25 + 0.604)))
    assert four == (4, 2.0, pytest.approx(28 / (10.5 + 2 * (0.9 + 0.006) + 0.004)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backward_s": -1}, "backward_s: Input should be greater than 0"),
        ({"gradients": [[4, 1.5]]}, "gradients.0.1: Input should be less than or equal to 1"),
        ({"gradients": []}, "gradients: Tuple should have at least 1 item"),
        ({"measured": {}}, "measured: Dictionary should have at least 1 item"),
        ({"latency_s": float("inf")}, "latency_s: Input should be a finite number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, change, message):
    path = tmp_path / "inputs.json"
    path.write_text(json.dumps(INPUTS | change))
    with pytest.raises(UserError, match=f"inputs.json: {message}.*; scripts/scaling/measure_scaling_inputs"):
        model.read(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match="No such file or directory; scripts/scaling/measure_scaling_inputs"):
        model.read(tmp_path / "absent.json")
