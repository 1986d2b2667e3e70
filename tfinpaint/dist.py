"""Keras 3 on Horovod: the only module that imports Horovod.

Horovod's own Keras wrapper hooks methods that Keras 3 never calls: `fit` runs and the ranks drift apart in silence.
Here the collectives are called outright, on plain `tf.Variable`s. Every method is the identity at world size 1, and
Horovod need not be installed there. TensorFlow and Horovod are imported when a world is started, not before.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint import activity, machine, rendezvous, startup, watch
from tfinpaint.config import Distributed
from tfinpaint.errors import UserError

log = logging.getLogger(__name__)

BROKEN_SECONDS = 5.0  # within which the cause of a broken collective is known, if another rank's death is the cause

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


def _launched_local_size() -> int:
    """How many processes the launcher started on this host; 1 where there is none."""
    if not any(name in os.environ for name in _LOCAL_SIZE_VARIABLES) and "SLURM_STEP_NUM_TASKS" in os.environ:
        return len(os.environ.get("SLURM_GTIDS", "0").split(","))  # srun's list of the tasks on this host
    return _from_environment(_LOCAL_SIZE_VARIABLES, 1)


def launched() -> bool:
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
    return max(1, int(min(cores, machine.core_limit() or cores)) // local_size)


class World:
    """The ranks that train together, and the collectives over them. Made by `start`.

    Attributes:
        rank, size: this process among all processes.
        local_rank, local_size: this process among those on its host.
        threads: cores that this process may use.
        gradient_groups, compression: how gradients travel, as in the configuration.
    """

    def __init__(self, hvd: Any = None, settings: Distributed | None = None) -> None:
        self._hvd = hvd
        settings = settings or Distributed()
        self.gradient_groups, self.compression = settings.gradient_groups, settings.compression
        self.rank = hvd.rank() if hvd else 0
        self.size = hvd.size() if hvd else 1
        self.local_rank = hvd.local_rank() if hvd else 0
        self.local_size = hvd.local_size() if hvd else 1
        self.threads = threads_per_rank(self.local_size)

    @property
    def is_first(self) -> bool:
        """True on the one rank that writes files and prints."""
        return self.rank == 0

    def doing(self, what: str) -> None:
        """Say what this rank is at, such as "in epoch 1, step 3"; the other ranks tell it should this one die."""
        if _watch and self.size > 1:
            _watch.doing(what)
            _notice_loss()

    def working(self) -> None:
        """Give a sign of work within something of which other ranks may have less to do."""
        activity.sign()
        if _watch and self.size > 1:
            _notice_loss()

    def meet(self) -> None:
        """Wait until every rank comes here: after work that one of them does alone, before a training step."""
        if self.size > 1:
            _arrive()

    def hosts_changed(self) -> bool:
        """True on rank 0 alone, once the launcher of an elastic run has told it that hosts have come or gone."""
        return _hosts_changed.is_set()

    def average_gradients(self, gradients: Sequence[Any]) -> list[Any]:
        """Mean over the ranks of each dense float32 gradient. May be called inside a `tf.function`, not under XLA.

        Args:
            gradients: in the order of the layers, so that the last are ready first.
        """
        if self.size == 1:
            return list(gradients)
        import tensorflow as tf

        compressed = self.compression == "fp16"
        # Divided before they travel: a sum of many float16 could overflow.
        sent = [tf.cast(g / self.size, tf.float16) for g in gradients] if compressed else list(gradients)
        received = self._reduce(sent, self._hvd.Sum if compressed else self._hvd.Average)
        return [tf.cast(g, tf.float32) for g in received] if compressed else received

    def _reduce(self, tensors: Sequence[Any], op: Any) -> list[Any]:
        if self.gradient_groups is None:
            # One named operation per tensor: Horovod fuses those that are ready while others are still being computed.
            return [self._hvd.allreduce(t, op=op, name=f"gradient_{n}") for n, t in enumerate(tensors)]
        groups = divide(tensors, [math.prod(tensor.shape) for tensor in tensors], self.gradient_groups)
        reduced = [self._hvd.grouped_allreduce(group, op=op, name=f"gradients_{n}") for n, group in enumerate(groups)]
        return [tensor for group in reduced for tensor in group]

    def sum_tensor(self, value: Any, name: str) -> Any:
        """Sum over the ranks of a tensor. May be called inside a `tf.function`, not under XLA.

        Args:
            name: the operation's, which no other operation in flight may have.
        """
        return value if self.size == 1 else self._hvd.allreduce(value, op=self._hvd.Sum, name=name)

    def mean_tensor(self, value: Any, name: str) -> Any:
        """Mean over the ranks of a tensor, through which gradients flow: as `sum_tensor`, divided."""
        return value if self.size == 1 else self._hvd.allreduce(value, op=self._hvd.Average, name=name)

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Give every rank the values of rank 0, except seed-generator states: ranks keep their own randomness.

        Args:
            variables: Keras variables, in the same order on every rank.
        """
        if self.size > 1:
            import tensorflow as tf

            _arrive()
            shared = [v.value for v in variables if "seed_generator" not in v.path]

            # Numbered, not named after the variables as broadcast_variables does: Keras numbers optimizers by how many
            # a process has made, and ranks that made different numbers would wait for each other for ever.
            @tf.function(autograph=False)
            def from_first() -> list[Any]:
                return [self._hvd.broadcast(v, root_rank=0, name=f"variable_{n}") for n, v in enumerate(shared)]

            for variable, value in zip(shared, from_first(), strict=True):
                variable.assign(value)

    def average_variables(self, variables: Sequence[Any]) -> None:
        """Replace each floating-point Keras variable by its mean over the ranks (batch-norm statistics)."""
        floats = [v for v in variables if v.dtype.startswith("float")]
        if self.size > 1 and floats:
            _arrive()
            means = self._hvd.grouped_allreduce([v.value for v in floats], op=self._hvd.Average, name="variables")
            for variable, mean in zip(floats, means, strict=True):
                variable.assign(mean)

    def sum_array(self, values: np.ndarray) -> np.ndarray:
        """Element-wise sum over the ranks, in float64."""
        if self.size == 1:
            return np.asarray(values, np.float64)
        _arrive()
        return self._hvd.allreduce(np.asarray(values, np.float64), op=self._hvd.Sum, name="sum").numpy()

    def gather_rows(self, values: np.ndarray) -> np.ndarray:
        """float64 [ranks, ...]: the arrays of all ranks, of one shape, on every rank."""
        rows = np.zeros((self.size, *values.shape))
        rows[self.rank] = values
        return self.sum_array(rows)

    def array_from_first(self, values: np.ndarray | None) -> np.ndarray:
        """float64: rank 0's array on every rank; what the others pass is not looked at."""
        shape = self.gather(list(values.shape) if values is not None else None)[0]
        return self.sum_array(values if values is not None and self.is_first else np.zeros(shape))

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum over the ranks of each named value; every rank must pass the same names."""
        names = sorted(values)
        return dict(zip(names, self.sum_array(np.array([values[n] for n in names])).tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """The JSON-able values of all ranks, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        _arrive()
        sent = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self._hvd.allgather(np.array([len(sent)]), name="gather_lengths").numpy()
        received = self._hvd.allgather(sent, name="gather").numpy().tobytes()
        ends = np.cumsum(lengths)
        return [json.loads(received[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Call `make` on rank 0 alone and give its JSON-able result to all; a UserError there is raised on all."""
        outcome: dict[str, Any] = {}
        if self.is_first:
            try:
                outcome = {"value": make()}
            except UserError as error:
                outcome = {"error": str(error)}
        outcome = self.gather(outcome)[0]
        if "error" in outcome:
            raise UserError(outcome["error"])
        return outcome["value"]


def divide(items: Sequence[Any], sizes: Sequence[int], count: int) -> list[list[Any]]:
    """Neighbouring items in at most `count` groups of about equal total size."""
    groups: list[list[Any]] = [[] for _ in range(count)]
    before, total = 0, sum(sizes)
    for item, size in zip(items, sizes, strict=True):
        groups[min(count - 1, (before + size // 2) * count // max(total, 1))].append(item)
        before += size
    return [group for group in groups if group]


class RankLostError(Exception):
    """Another rank has died or failed: this one's collectives are broken, or would never end."""


class HostsChangedError(Exception):
    """Raised by all ranks of an elastic run at the same place, where nothing is lost if they start again."""


def start(settings: Distributed, folder: Path | None = None) -> World:
    """Join the ranks that the launcher started; divide this host's cores and GPUs among its ranks.

    Settings that the user has already made in the environment are left alone. Call it once, before TensorFlow runs
    anything.

    Args:
        folder: where rank 0 writes what `timeline` and `autotune` ask for.

    Raises:
        UserError: a launcher started several processes but Horovod cannot be imported, or does not see them all.
        rendezvous.DismissedError: the launcher of an elastic run has no need of this process.
    """
    global _watch
    startup.settle_imported_keras()
    elastic = rendezvous.is_elastic()
    if elastic:  # early: the launcher tells of a change once, and only those who listen
        _listen_for_changes()
    size = launched_size()
    local_size = _launched_local_size()
    threads = threads_per_rank(local_size)
    _import_tensorflow()
    hvd = None
    if size > 1 or elastic:
        environment = _horovod_environment(settings, folder, crowded=local_size > 1 and threads <= 2)
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        hvd = _import_horovod(size)
    _limit_threads(threads)
    if elastic:
        rendezvous.assemble()
        size = launched_size()
    if hvd:
        hvd.init()
        if hvd.size() != size:
            raise UserError(
                f"the launcher started {size} processes, but Horovod joined {hvd.size()}: its MPI is not the "
                "launcher's; start with horovodrun, or with the mpirun that Horovod was built with"
            )
    world = World(hvd, settings)
    _pin_gpu(world, alone=not (world.size > 1 or elastic))
    if hvd:
        timeouts = settings.heartbeat_timeout_s, settings.stall_timeout_s
        on_loss = _shut_down if elastic else None
        _watch = watch.join(world.rank, _addresses(world), world.gather, *timeouts, on_loss)
        log.info(_described(world, hvd, list(environment)))
    return world


_shutting_down = threading.Lock()


def _shut_down() -> None:
    """End Horovod here, and with it what this and the other ranks wait for in it. Any thread may call this."""
    import horovod.tensorflow as hvd

    with _shutting_down:
        hvd.shutdown()


_hosts_changed = threading.Event()


def _listen_for_changes() -> None:
    """Have the launcher of an elastic run tell this process of hosts that come or go; it tells rank 0 alone."""
    from horovod.runner.elastic.worker import WorkerNotificationManager

    class Listener:
        def on_hosts_updated(self, timestamp: int, result: Any) -> None:
            _hosts_changed.set()

    manager = WorkerNotificationManager()
    manager.init()
    manager.register_listener(Listener())


def _horovod_environment(settings: Distributed, folder: Path | None, *, crowded: bool) -> dict[str, str]:
    """The settings by the names under which Horovod and Open MPI read them when they start.

    Args:
        crowded: ranks share the cores of a host, so that what one of them burns is missing in another.
    """
    found = {
        # Its own check comes second: the heartbeats know more, and end the ranks where it only says so.
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(max(2 * settings.stall_timeout_s, 120)),
    }
    if not settings.autotune:  # it leaves alone what is set
        # A large tensor that travels alone is not copied: where cores are short, worth more than fewer messages.
        fusion_mb = (4 if crowded else 64) if settings.fusion_threshold_mb is None else settings.fusion_threshold_mb
        found |= {
            "HOROVOD_FUSION_THRESHOLD": str(fusion_mb * 2**20),
            "HOROVOD_CYCLE_TIME": f"{settings.cycle_time_ms or (5 if crowded else 1):g}",
            "HOROVOD_CACHE_CAPACITY": str(settings.cache_capacity),
        }
    if crowded:  # a rank that waits must not spin on the core that another rank computes on
        found["OMPI_MCA_mpi_yield_when_idle"] = "1"
    if settings.autotune:
        found["HOROVOD_AUTOTUNE"] = "1"
    files = {"HOROVOD_TIMELINE": "timeline.json"} if settings.timeline else {}
    files |= {"HOROVOD_AUTOTUNE_LOG": "autotune.csv"} if settings.autotune else {}
    if folder:
        # Every rank has to be told of a timeline, for which ranks exchange longer messages; rank 0 alone writes it.
        first = launched_rank() == 0
        found |= {name: str(_unused(folder, file)) if first else os.devnull for name, file in files.items()}
    return found


def _unused(folder: Path, name: str) -> Path:
    """A file of this name, numbered where there is one: Horovod writes over files, and makes no folders."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the run folder: {error.strerror or error}") from None
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = (folder / name).with_stem(f"{Path(name).stem}_{number}")
    return path


def _described(world: World, hvd: Any, names: Sequence[str]) -> str:
    """How the ranks work together, with what is in force whoever has set it."""
    controller = "MPI" if hvd.mpi_enabled() else "Gloo"
    here = "" if world.local_size == world.size else f", {world.local_size} of them on this host"
    settings = " ".join(f"{name}={os.environ[name]}" for name in names)
    return (
        f"{world.size} rank{'s' * (world.size > 1)} over {controller}{here}, {world.threads} thread(s) each; {settings}"
    )


def _addresses(world: World) -> list[str]:
    """IPv4 addresses at which ranks on other hosts reach this one; loopback where there are no other hosts."""
    if world.local_size == world.size:
        return ["127.0.0.1"]
    import psutil

    wanted = os.environ.get("HOROVOD_GLOO_IFACE", "").split(",")
    found = {
        name: [address.address for address in addresses if address.family == socket.AF_INET]
        for name, addresses in psutil.net_if_addrs().items()
        if psutil.net_if_stats()[name].isup
    }
    chosen = [name for name in found if name in wanted] or [name for name in found if name != "lo"]
    return [address for name in chosen for address in found[name]]


def start_alone(settings: Distributed) -> None:
    """As `start`, for a command that works in one process and joins no other, even where a launcher started it."""
    startup.settle_imported_keras()
    if "tensorflow" not in sys.modules and not launched():
        start(settings)


_watch: watch.Watch | None = None  # of this process, once it has joined others


def _arrive() -> None:
    """Come to a collective: wait until all ranks have, so that one that does not is found."""
    if _watch:
        _watch.meet()
        _notice_loss()


def _notice_loss() -> None:
    """In an elastic run no other thread ends this process when a rank is lost: do not go on to what cannot end."""
    if _watch and _watch.lost and rendezvous.is_elastic():
        raise RankLostError


def tell_failure(reason: str, *, final: bool = False) -> None:
    """Let the other ranks know that this one ends, and why; they end too.

    Args:
        final: those of an elastic run as well, since without this rank the same would happen to them.
    """
    if _watch:
        _watch.fail(reason, final=final)


def failure_elsewhere(error: BaseException) -> str | None:
    """Why a collective broke, where that is what the error says; None for any other error.

    When a rank dies, the others' reductions fail with words about connections; what they mean is known a moment later.
    """
    if _watch is None or not _is_of_horovod(error):
        return None
    where = _watch.where()
    if cause := _watch.cause(BROKEN_SECONDS):
        return cause
    words = next((line for line in str(error).splitlines() if "horovod" in line.lower()), type(error).__name__)
    reason = f"a reduction over the ranks failed: {words.strip()}; {where}"
    _watch.fail(reason)
    return reason


def loss_to_survive(error: BaseException) -> str | None:
    """What has happened, where an elastic run goes on after this error; None where it should end."""
    if isinstance(error, HostsChangedError):
        return "Hosts have come or gone"
    if _watch is None:
        return "A rank was lost while the ranks joined" if _is_of_horovod(error) else None
    cause = failure_elsewhere(error)
    return None if _watch.final else cause


def _is_of_horovod(error: BaseException) -> bool:
    if isinstance(error, RankLostError) or type(error).__name__ == "HorovodInternalError":
        return True
    shut_down = isinstance(error, ValueError) and "Horovod has not been initialized" in str(error)
    return shut_down or (type(error).__module__.startswith("tensorflow.") and "horovod" in str(error).lower())


def leave() -> None:
    """Say goodbye to the other ranks: this one has done its work."""
    if _watch:
        _watch.doing("ending")
        _shut_down()  # waits for the others, and therefore while they are watched
        _watch.close()


def _import_tensorflow() -> None:
    """Import it without the notices that its C++ part writes to stderr whatever the log level; a failure is shown."""
    with os.fdopen(os.memfd_create("notices"), "r+b") as notices:  # needs no folder for temporary files
        stderr = os.dup(2)
        os.dup2(notices.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            notices.seek(0)
            os.write(stderr, notices.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _import_horovod(size: int) -> Any:
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise UserError(
            f"started as {size} processes, but Horovod cannot be imported ({error}); run scripts/setup, "
            "or start a single process without a launcher"
        ) from None
    return hvd


def _limit_threads(threads: int) -> None:
    import tensorflow as tf

    if threads < len(os.sched_getaffinity(0)) and "TF_NUM_INTRAOP_THREADS" not in os.environ:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def _pin_gpu(world: World, *, alone: bool) -> None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus and not alone:
        gpus = [gpus[world.local_rank % len(gpus)]]
        tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
