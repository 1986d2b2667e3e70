"""Read what a launcher sets for each process that it starts: rank, number of ranks, cores. Needs no Horovod."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tfinpaint.system import hardware

# Variables that Open MPI, Horovod's Gloo launcher, other MPIs (PMI) and Slurm's srun set.
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_LOCAL_SIZE_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "HOROVOD_LOCAL_SIZE", "MPI_LOCALNRANKS")


def _from_environment(names: Sequence[str], default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)


def launched_rank() -> int:
    """Return the rank that the launcher has given this process; 0 without a launcher."""
    return _from_environment(_RANK_VARIABLES, 0)


def launched_size() -> int:
    """Return how many processes the launcher has started; 1 without a launcher."""
    return _from_environment(_SIZE_VARIABLES, 1)


def launched_local_size() -> int:
    """Return how many processes the launcher has started on this host; 1 without a launcher."""
    if not any(name in os.environ for name in _LOCAL_SIZE_VARIABLES) and "SLURM_STEP_NUM_TASKS" in os.environ:
        return len(os.environ.get("SLURM_GTIDS", "0").split(","))  # srun's list of the tasks on this host
    return _from_environment(_LOCAL_SIZE_VARIABLES, 1)


def was_launched() -> bool:
    """Return True if a launcher (horovodrun, mpirun, srun) started this process, even as the only one."""
    return any(name in os.environ for name in _SIZE_VARIABLES)


def threads_per_rank(local_size: int) -> int:
    """Return how many cores this rank may use: those it is bound to, or its share of the cores of the host's ranks.

    The host's ranks may have fewer cores than the machine: a batch job or a container may be bound to some of them, or
    limited in processor time.

    Args:
        local_size: number of ranks on this host.
    """
    own = os.sched_getaffinity(0)
    try:
        bound_alone = own != os.sched_getaffinity(os.getppid())
    except OSError:  # the parent belongs to another user
        bound_alone = False
    cores = len(own) * local_size if bound_alone else len(own)
    return max(1, int(min(cores, hardware.core_limit() or cores)) // local_size)
