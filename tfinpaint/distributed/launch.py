"""Join the ranks that a launcher started, and set up each process: threads, GPU, Horovod's settings."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfinpaint.config.sections import Distributed
from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.environment import (
    launched_local_size,
    launched_rank,
    launched_size,
    threads_per_rank,
    was_launched,
)
from tfinpaint.distributed.failures import current_heartbeat, hosts_changed, use_heartbeat
from tfinpaint.distributed.heartbeat import join_heartbeats
from tfinpaint.distributed.rendezvous import wait_for_all_ranks
from tfinpaint.errors import UserError, first_line
from tfinpaint.layout import AUTOTUNE_LOG, TIMELINE
from tfinpaint.system import startup
from tfinpaint.system.subprocesses import CONTINUED_BY
from tfinpaint.system.wording import counted

if TYPE_CHECKING:
    from tfinpaint.distributed.world import World

log = logging.getLogger(__name__)


class TensorFlowHasRunError(UserError):
    """TensorFlow has computed something, and does not take its threads and GPUs any more."""


def join_ranks(settings: Distributed, folder: Path | None = None, *, as_library: bool = False) -> World:
    """Join the ranks that the launcher has started; divide this host's cores and GPUs among its ranks.

    Settings that the user has made in the environment stay as they are. Call it once, before TensorFlow runs anything.

    Args:
        folder: where rank 0 writes the files of `timeline` and `autotune`.
        as_library: leave Keras's settings, and what it imports, to the program.

    Raises:
        UserError: a launcher has started several processes but Horovod cannot be imported, or does not join them all.
        TensorFlowHasRunError: TensorFlow has run already.
        rendezvous.DismissedError: the launcher of an elastic run does not need this process.
    """
    from tfinpaint.distributed.world import World  # NumPy is needed from here on

    if as_library:
        startup.check_imported_keras()
    else:
        startup.settle_imported_keras()
    elastic = rendezvous.is_elastic()
    if elastic:  # early: the launcher reports a change only once, to processes that listen
        _listen_for_changes()
    size = launched_size()
    local_size = launched_local_size()
    threads = threads_per_rank(local_size)
    if not as_library:
        _announce_loading()
    # Keras would import these two, a third of the time, for functions that no command uses.
    _import_tensorflow(*(() if as_library else ("sklearn", "matplotlib")))
    hvd = None
    if size > 1 or elastic:
        environment = _horovod_environment(settings, folder, crowded=local_size > 1 and threads <= 2)
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        hvd = _import_horovod(size)
    _before_tensorflow_runs(_limit_threads, threads)
    if elastic:
        wait_for_all_ranks()
        size = launched_size()
    if hvd:
        _start_horovod(hvd, size)
    world = World(hvd, settings)
    _before_tensorflow_runs(_pin_gpu, world, alone=not (world.size > 1 or elastic))
    if hvd:
        _exchange_heartbeats(world, settings, elastic=elastic)
        world.communication = _describe_communication(hvd, list(environment))
        log.info(_describe_ranks(world))
    return world


_joined: World | None = None  # of a program that uses this package as a library


def join_once(settings: Distributed, folder: Path | None = None) -> World:
    """Return the ranks that this process has joined, and join them at the first call. They are left at its end.

    What Horovod reads when it starts (fusion, cycle time, cache, timeline) is settled by the first call.

    Args:
        settings, folder: as `join_ranks` takes them.

    Raises:
        UserError: as `join_ranks` does; the launcher is one of elastic runs, which start a program again; or TensorFlow
            has run in this process, and several ranks cannot be given their threads and GPUs any more.
    """
    global _joined
    if rendezvous.is_elastic():
        raise UserError(
            "an elastic run starts its program again when ranks change, which the Python interface cannot; start "
            "`python -m tfinpaint.pretrain` or `tfinpaint.classify` with this launcher, or name a fixed number of ranks"
        )
    if _joined is None:
        try:
            _joined = join_ranks(settings, folder)
        except TensorFlowHasRunError:
            if launched_size() > 1:
                raise
            from tfinpaint.distributed.world import World

            _joined = World(None, settings)
        if _joined.size > 1:
            atexit.register(leave_ranks)
    return _joined.with_settings(settings)


_shutting_down = threading.Lock()


def _shut_down() -> None:
    """End Horovod in this process, which interrupts all collectives that wait for it. Any thread may call this."""
    import horovod.tensorflow as hvd

    with _shutting_down:
        hvd.shutdown()


def _listen_for_changes() -> None:
    """Have the launcher of an elastic run report to rank 0 when hosts are added or removed."""
    from horovod.runner.elastic.worker import WorkerNotificationManager

    class Listener:
        def on_hosts_updated(self, timestamp: int, result: Any) -> None:
            hosts_changed.set()

    manager = WorkerNotificationManager()
    manager.init()
    manager.register_listener(Listener())


def _horovod_environment(settings: Distributed, folder: Path | None, *, crowded: bool) -> dict[str, str]:
    """Return the settings as environment variables, which Horovod and Open MPI read when they start.

    Args:
        crowded: True if ranks share the cores of a host, so that a rank that waits busily slows down another.
    """
    found = {
        # The heartbeats come first: they know more, and they end the ranks.
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(max(2 * settings.stall_timeout_s, 120)),
    }
    if not settings.autotune:  # autotuning changes only what is not set
        # A large tensor that travels alone is not copied, which matters more than fewer messages if cores are scarce.
        fusion_mb = (4 if crowded else 64) if settings.fusion_threshold_mb is None else settings.fusion_threshold_mb
        found |= {
            "HOROVOD_FUSION_THRESHOLD": str(fusion_mb * 2**20),
            "HOROVOD_CYCLE_TIME": f"{settings.cycle_time_ms or (5 if crowded else 1):g}",
            "HOROVOD_CACHE_CAPACITY": str(settings.cache_capacity),
        }
    if crowded:  # a waiting rank must not spin on the core on which another computes
        found["OMPI_MCA_mpi_yield_when_idle"] = "1"
    if settings.autotune:
        found["HOROVOD_AUTOTUNE"] = "1"
    files = {"HOROVOD_TIMELINE": TIMELINE} if settings.timeline else {}
    files |= {"HOROVOD_AUTOTUNE_LOG": AUTOTUNE_LOG} if settings.autotune else {}
    if folder:
        # Every rank needs the setting of a timeline, for which ranks exchange longer messages; only rank 0 writes it.
        first = launched_rank() == 0
        found |= {name: str(_unused_path(folder, file)) if first else os.devnull for name, file in files.items()}
    return found


def _unused_path(folder: Path, name: str) -> Path:
    """Return a path that does not exist yet, numbered if necessary: Horovod overwrites files and creates no folders."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the run folder: {error.strerror or error}") from None
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = (folder / name).with_stem(f"{Path(name).stem}_{number}")
    return path


def _describe_communication(hvd: Any, names: Sequence[str]) -> dict[str, str]:
    """Return how the ranks communicate, and these variables of Horovod and Open MPI, as they are in force."""
    return {"over": "MPI" if hvd.mpi_enabled() else "Gloo", **{name: os.environ[name] for name in names}}


def _describe_ranks(world: World) -> str:
    """Return how many ranks there are, how they communicate, and how many threads each has."""
    ranks, threads = counted(world.size, "rank"), counted(world.threads, "thread")
    here = "" if world.local_size == world.size else f", {world.local_size} of them on this host"
    return f"{ranks} over {world.communication['over']}{here}, {threads} each"


def _addresses(world: World) -> list[str]:
    """Return the IPv4 addresses at which ranks on other hosts reach this one; loopback if there are no other hosts."""
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


def start_single_rank(settings: Distributed) -> None:
    """Set up a process as `join_ranks` does, for a command that works in one process even under a launcher."""
    startup.settle_imported_keras()
    if "tensorflow" not in sys.modules and not was_launched():
        join_ranks(settings)


def leave_ranks() -> None:
    """Leave the other ranks: this one has done its work."""
    if heartbeat := current_heartbeat():
        heartbeat.report_task("ending")
        _shut_down()  # waits for the others, so the heartbeats still watch them
        heartbeat.close()


def _announce_loading() -> None:
    """Log that TensorFlow is loaded, where a user waits for it: on a terminal, or in a stage of `tfinpaint run`."""
    is_watched = sys.stdout.isatty() or CONTINUED_BY in os.environ
    if is_watched and launched_rank() == 0 and "tensorflow" not in sys.modules:
        log.info("Loading TensorFlow (this can take a minute)...")


@contextmanager
def _leaving_out(*modules: str) -> Iterator[None]:
    """Let the import of these modules fail within a `with` statement, as if they were not installed."""
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # makes `import` fail
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _import_tensorflow(*left_out: str) -> None:
    """Import TensorFlow without the notices that its C++ part writes to stderr at any log level; a failure is shown.

    Args:
        left_out: modules that Keras does without.
    """
    memory = os.memfd_create("notices")  # /tmp may not be writable
    with os.fdopen(memory, "r+b") as notices, _leaving_out(*left_out):
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
            f"started as {size} processes, but Horovod cannot be imported ({error}); {startup.how_to_get_horovod()}, "
            "or start a single process without a launcher"
        ) from None
    return hvd


def _start_horovod(hvd: Any, size: int) -> None:
    """Start Horovod, which joins this process to those that the launcher has started with it.

    Raises:
        UserError: it has joined another number of processes.
    """
    hvd.init()
    if hvd.size() != size:
        raise UserError(
            f"the launcher started {size} processes, but Horovod joined {hvd.size()}: its MPI is not the "
            "launcher's; start with horovodrun, or with the mpirun that Horovod was built with"
        )


def _exchange_heartbeats(world: World, settings: Distributed, *, elastic: bool) -> None:
    """Begin the heartbeats by which a rank notices that another one is lost or hangs."""
    timeouts = settings.heartbeat_timeout_s, settings.stall_timeout_s
    on_loss = _shut_down if elastic else None
    use_heartbeat(join_heartbeats(world.rank, _addresses(world), world.all_gather, *timeouts, on_loss))


def _before_tensorflow_runs(set_up: Callable[..., None], *values: Any, **options: Any) -> None:
    """Call a function that changes what TensorFlow reads when it first computes something.

    Raises:
        TensorFlowHasRunError: TensorFlow has computed something already.
    """
    try:
        set_up(*values, **options)
    except RuntimeError as error:
        raise TensorFlowHasRunError(
            f"TensorFlow has run before the ranks were joined ({first_line(error)}); join them first, before the "
            "program makes a model or a tensor"
        ) from None


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
