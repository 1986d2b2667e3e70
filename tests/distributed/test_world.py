"""The world of one rank, and what the launchers' environments mean."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.sections import Distributed
from tfinpaint.distributed import launch
from tfinpaint.distributed import world as dist
from tfinpaint.distributed.environment import (
    _LOCAL_SIZE_VARIABLES,
    _RANK_VARIABLES,
    _SIZE_VARIABLES,
    launched_local_size,
    launched_rank,
    launched_size,
    threads_per_rank,
    was_launched,
)
from tfinpaint.distributed.failures import _is_of_horovod
from tfinpaint.distributed.launch import _horovod_environment, _import_horovod
from tfinpaint.distributed.world import group_by_size
from tfinpaint.errors import UserError
from tfinpaint.system import hardware


def test_everything_is_the_identity_at_one_rank():
    world = dist.World()
    assert (world.rank, world.size, world.local_rank, world.local_size, world.is_rank0) == (0, 1, 0, 1, True)
    gradients = [tf.constant([1.0, 2.0]), tf.constant([[3.0]])]
    assert all(a is b for a, b in zip(world.average_gradients(gradients), gradients, strict=True))
    assert world.sum_values({"b": 2.0, "a": 1.0}) == {"a": 1.0, "b": 2.0}
    assert world.sum_array(np.array([1, 2])).dtype == np.float64
    assert world.all_gather({"x": [1]}) == [{"x": [1]}]
    variable = keras.Variable([1.0, 2.0])
    world.broadcast_variables([variable])
    world.average_variables([variable])
    assert variable.numpy().tolist() == [1.0, 2.0]


def test_from_first_gives_the_value_or_the_error():
    world = dist.World()
    assert world.run_on_rank0(lambda: 3) == 3

    def fail():
        raise UserError("told")

    with pytest.raises(UserError, match="told"):
        world.run_on_rank0(fail)


@pytest.mark.parametrize(
    ("environment", "rank", "size", "launched"),
    [
        ({}, 0, 1, False),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, 2, 4, True),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}, 1, 2, True),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, 3, 8, True),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, 0, 1, True),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, 3, 4, True),  # srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, 0, 1, False),  # a batch script, which is no rank
        # mpirun within a batch job
        ({"SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, 1, 2, True),
    ],
)
def test_ranks_are_known_before_horovod_is(monkeypatch, environment, rank, size, launched):
    for name in (*_RANK_VARIABLES, *_SIZE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (launched_rank(), launched_size(), was_launched()) == (rank, size, launched)


@pytest.mark.parametrize(
    ("environment", "local_size"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_GTIDS": "2,3"}, 2),  # srun, two tasks on each of two hosts
        ({"SLURM_GTIDS": "0,1"}, 1),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_GTIDS": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 4),
    ],
)
def test_ranks_of_a_host_are_counted_before_horovod_is(monkeypatch, environment, local_size):
    for name in (*_LOCAL_SIZE_VARIABLES, "SLURM_STEP_NUM_TASKS", "SLURM_GTIDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_local_size() == local_size


@pytest.mark.parametrize(
    ("own", "launchers", "limit", "ranks", "threads"),
    [
        (8, 8, None, 2, 4),
        (2, 2, None, 4, 1),
        (1, 8, None, 4, 1),  # bound to a core by the launcher
        (3, 8, None, 1, 3),
        (3, 8, None, 2, 3),
        (8, 8, None, 1, 8),
        (8, 8, 4.0, 2, 2),  # a container with the time of 4 cores
        (8, 8, 0.5, 2, 1),
        (4, 8, 4.0, 2, 2),
    ],
)
def test_cores_are_divided_among_the_ranks_unless_they_are_bound(monkeypatch, own, launchers, limit, ranks, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(launchers if process else own)))
    monkeypatch.setattr(hardware, "core_limit", lambda: limit)
    assert threads_per_rank(ranks) == threads


IMPORTS = (
    "from tfinpaint.cli.command import run_command; from tfinpaint.config.sections import Distributed; "
    "from tfinpaint.distributed.launch import join_ranks"
)


def run_without_horovod(code: str, **environment: str) -> subprocess.CompletedProcess:
    hide = f"import sys; sys.modules['horovod'] = None; {IMPORTS}; "
    return subprocess.run(
        [sys.executable, "-c", hide + code], capture_output=True, text=True, env=os.environ | environment
    )


def test_without_horovod_one_rank_starts_quietly_and_imports_no_more_than_is_needed():
    code = (
        "print(join_ranks(Distributed()).size); assert 'tensorflow' in sys.modules\n"
        "assert not {'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "import sklearn, matplotlib.pyplot"  # they are not kept out for good
    )
    alone = run_without_horovod(code)
    assert (alone.returncode, alone.stdout, alone.stderr) == (0, "1\n", "")


def test_horovod_that_cannot_be_imported_is_an_error_of_several_ranks(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(UserError, match=r"started as 2 processes, but Horovod cannot be imported .*run scripts/setup"):
        _import_horovod(2)


@pytest.mark.stress
def test_without_horovod_two_ranks_are_refused():
    code = "sys.exit(run_command(lambda: print(join_ranks(Distributed()).size)))"
    two = run_without_horovod(code, HOROVOD_SIZE="2", HOROVOD_RANK="0")
    assert two.returncode == 2
    assert "error: started as 2 processes, but Horovod cannot be imported" in two.stderr
    assert "run scripts/setup" in two.stderr
    assert "Traceback" not in two.stderr


def test_neighbours_are_divided_into_groups_of_about_equal_size():
    assert group_by_size("abcdef", [1, 1, 1, 1, 1, 1], 3) == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert group_by_size("abc", [1, 1, 100], 2) == [["a", "b"], ["c"]]
    assert group_by_size("ab", [3, 5], 8) == [["a"], ["b"]]  # no empty groups
    assert group_by_size("abcd", [0, 0, 0, 0], 2) == [["a", "b", "c", "d"]]


def test_horovod_reads_the_settings_of_the_configuration(tmp_path, monkeypatch):
    settings = Distributed(fusion_threshold_mb=2, cycle_time_ms=2.5, cache_capacity=7, stall_timeout_s=90)
    for name in (*_RANK_VARIABLES, *_SIZE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    found = _horovod_environment(settings, tmp_path, crowded=False)
    assert found == {
        "HOROVOD_FUSION_THRESHOLD": "2097152",
        "HOROVOD_CYCLE_TIME": "2.5",
        "HOROVOD_CACHE_CAPACITY": "7",
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "180",
    }
    crowded = _horovod_environment(Distributed(timeline=True), tmp_path / "run", crowded=True)
    assert (crowded["HOROVOD_CYCLE_TIME"], crowded["OMPI_MCA_mpi_yield_when_idle"]) == ("5", "1")
    assert crowded["HOROVOD_FUSION_THRESHOLD"] == "4194304"
    assert _horovod_environment(Distributed(), None, crowded=False)["HOROVOD_FUSION_THRESHOLD"] == "67108864"
    assert crowded["HOROVOD_TIMELINE"] == str(tmp_path / "run" / "timeline.json")
    assert (tmp_path / "run").is_dir()  # Horovod makes no folders
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    other = _horovod_environment(Distributed(timeline=True), tmp_path / "other", crowded=True)
    assert other == crowded | {"HOROVOD_TIMELINE": os.devnull}
    assert not (tmp_path / "other").exists()
    monkeypatch.delenv("OMPI_COMM_WORLD_RANK")
    (tmp_path / "run" / "autotune.csv").touch()  # nor does it spare files
    tuned = _horovod_environment(Distributed(autotune=True), tmp_path / "run", crowded=True)
    assert (tuned["HOROVOD_AUTOTUNE"], tuned["HOROVOD_AUTOTUNE_LOG"]) == ("1", str(tmp_path / "run/autotune_2.csv"))
    assert not tuned.keys() & {"HOROVOD_FUSION_THRESHOLD", "HOROVOD_CYCLE_TIME", "HOROVOD_CACHE_CAPACITY"}


def test_only_errors_of_collectives_are_taken_for_them():
    assert _is_of_horovod(tf.errors.UnknownError(None, None, "Horovod has been shut down"))
    assert not _is_of_horovod(tf.errors.UnknownError(None, None, "out of range"))
    assert not _is_of_horovod(UserError("/data/horovod/images: no images found"))
    assert not _is_of_horovod(OSError(28, "No space left on device", "/runs/horovod/metrics.jsonl"))


def test_one_process_may_have_used_tensorflow_before_it_trains_and_several_may_not(monkeypatch):
    def refuse(threads: int) -> None:
        raise RuntimeError("Intra op parallelism cannot be modified after initialization.")

    monkeypatch.setattr(launch, "_limit_threads", refuse)
    monkeypatch.setattr(launch, "_joined", None)
    assert launch.join_once(Distributed()).size == 1
    monkeypatch.setattr(launch, "_joined", None)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(launch, "_horovod_environment", lambda *_, **__: {})
    monkeypatch.setattr(launch, "_import_horovod", lambda size: None)
    with pytest.raises(UserError, match=r"TensorFlow has run before the ranks were joined \(Intra op .*\); join them"):
        launch.join_once(Distributed())
