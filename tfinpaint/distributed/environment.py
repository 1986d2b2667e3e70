"""What a launcher tells the processes that it starts: rank, number of ranks, and cores of each. Needs no Horovod."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tfinpaint.system import hardware

# What Open MPI, Horovod's Gloo launcher, other MPIs (PMI) and Slurm's srun tell the processes they start.
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "HOROVOD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")


_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "HOROVOD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


_LOCAL_SIZE_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "HOROVOD_LOCAL_SIZE", "MPI_LOCALNRANKS")


def _from_environment(names: Sequence[str], default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)


def launched_rank() -> int:
    """This process's rank as its launcher told it; 0 where there is none. Needs no Horovod."""
    return _from_environment(_RANK_VARIABLES, 0)


def launched_size() -> int:
    """How many processes the launcher started; 1 where there is none. Needs no Horovod."""
    return _from_environment(_SIZE_VARIABLES, 1)


def launched_local_size() -> int:
    """How many processes the launcher started on this host; 1 where there is none."""
    if not any(name in os.environ for name in _LOCAL_SIZE_VARIABLES) and "SLURM_STEP_NUM_TASKS" in os.environ:
        return len(os.environ.get("SLURM_GTIDS", "0").split(","))  # srun's list of the tasks on this host
    return _from_environment(_LOCAL_SIZE_VARIABLES, 1)


def was_launched() -> bool:
    """True where a launcher (horovodrun, mpirun, Slurm's PMI) started this process, be it alone."""
    return any(name in os.environ for name in _SIZE_VARIABLES)


def threads_per_rank(local_size: int) -> int:
    """Cores that this rank may use: those its launcher has bound it to, or its share of those of the host's ranks.

    These may be fewer than the machine has: a batch job or a container may be bound, or limited in time, as a whole.
    """
    own = os.sched_getaffinity(0)
    try:
        bound_alone = own != os.sched_getaffinity(os.getppid())
    except OSError:  # the parent is somebody else's
        bound_alone = False
    cores = len(own) * local_size if bound_alone else len(own)
    return max(1, int(min(cores, hardware.core_limit() or cores)) // local_size)
