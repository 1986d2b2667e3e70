"""The collectives over all ranks, by Horovod.

Horovod's own wrapper for Keras overrides methods that Keras 3 never calls: `fit` runs, and the ranks silently diverge.
Therefore this module calls the collectives directly, on plain `tf.Variable`s. With a single rank every method is the
identity, and Horovod need not be installed. TensorFlow and Horovod are imported when the ranks join, not before.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from tfinpaint.config.sections import Distributed
from tfinpaint.distributed.environment import threads_per_rank
from tfinpaint.distributed.failures import hosts_changed, raise_if_rank_lost, report_task, wait_for_ranks
from tfinpaint.errors import UserError
from tfinpaint.system.activity import report_activity

log = logging.getLogger(__name__)


class World:
    """The ranks that train together, and the collectives over them. `join` returns it; without arguments, one rank.

    Attributes:
        rank, size: number of this process, and of all processes.
        local_rank, local_size: the same among the processes on this host.
        threads: cores that this process may use.
        gradient_groups, compression: how gradients are sent, as in the configuration.
        communication: what the ranks communicate over, and the variables of Horovod and Open MPI that are in force;
            empty for a single process without a launcher.
    """

    def __init__(self, hvd: Any = None, settings: Distributed | None = None) -> None:
        self._hvd = hvd
        settings = settings or Distributed()
        self.gradient_groups, self.compression = settings.gradient_groups, settings.compression
        self.communication: Mapping[str, str] = {}
        self.rank = hvd.rank() if hvd else 0
        self.size = hvd.size() if hvd else 1
        self.local_rank = hvd.local_rank() if hvd else 0
        self.local_size = hvd.local_size() if hvd else 1
        self.threads = threads_per_rank(self.local_size)

    def with_settings(self, settings: Distributed) -> World:
        """Return the same ranks, which send gradients as these settings say."""
        world = World(self._hvd, settings)
        world.communication = self.communication
        return world

    @property
    def is_rank0(self) -> bool:
        """True on the only rank that writes files and prints."""
        return self.rank == 0

    def report_task(self, what: str) -> None:
        """Set what this rank does, such as "in epoch 1, step 3"; the other ranks report it if this one dies."""
        if self.size > 1:
            report_task(what)

    def report_activity(self) -> None:
        """Show that this rank still works, within a task that may take it longer than the other ranks."""
        report_activity()
        if self.size > 1:
            raise_if_rank_lost()

    def wait_for_ranks(self) -> None:
        """Wait until every rank has come here, for example after work that rank 0 does alone."""
        if self.size > 1:
            wait_for_ranks()

    def hosts_changed(self) -> bool:
        """Return True on rank 0 once the launcher of an elastic run has reported that hosts were added or removed."""
        return hosts_changed.is_set()

    def average_gradients(self, gradients: Sequence[Any], name: str = "gradient") -> list[Any]:
        """Return the mean over the ranks of each dense float32 gradient; inside a `tf.function` too, but not under XLA.

        Args:
            gradients: in the order of the layers; the last are computed first.
            name: of the operations; another one for each network whose gradients may be under way at the same time.
        """
        if self.size == 1:
            return list(gradients)
        import tensorflow as tf

        compressed = self.compression == "fp16"
        # Divided before they are sent, because a sum of many float16 values could overflow.
        sent = [tf.cast(g / self.size, tf.float16) for g in gradients] if compressed else list(gradients)
        received = self._reduce(sent, self._hvd.Sum if compressed else self._hvd.Average, name)
        return [tf.cast(g, tf.float32) for g in received] if compressed else received

    def _reduce(self, tensors: Sequence[Any], op: Any, name: str) -> list[Any]:
        if self.gradient_groups is None:
            # One named operation per tensor: Horovod fuses those that are ready while others are still being computed.
            return [self._all_reduce(t, op, f"{name}_{n}") for n, t in enumerate(tensors)]
        groups = group_by_size(tensors, [math.prod(tensor.shape) for tensor in tensors], self.gradient_groups)
        reduced = [self._hvd.grouped_allreduce(group, op=op, name=f"{name}s_{n}") for n, group in enumerate(groups)]
        return [tensor for group in reduced for tensor in group]

    def all_reduce_sum(self, value: Any, name: str) -> Any:
        """Return the sum of a tensor over the ranks; inside a `tf.function` too, but not under XLA.

        Args:
            value: of any shape, the same on all ranks; integers, float16, float32 or float64, but not bfloat16.
            name: of the operation; unique among the operations that run at the same time.
        """
        return value if self.size == 1 else self._all_reduce(value, self._hvd.Sum, name)

    def all_reduce_mean(self, value: Any, name: str) -> Any:
        """Return the mean of a tensor over the ranks, through which gradients flow; otherwise as `all_reduce_sum`."""
        if self.size == 1:
            return value
        import tensorflow as tf

        @tf.custom_gradient
        def mean(own: Any) -> tuple[Any, Callable[[Any], Any]]:
            def gradient(received: Any) -> Any:
                return self._all_reduce(received, self._hvd.Average, f"{name}_gradient")

            return self._all_reduce(own, self._hvd.Average, name), gradient

        return mean(value)

    def _all_reduce(self, value: Any, op: Any, name: str) -> Any:
        with _same_names_on_all_ranks():
            return self._hvd.allreduce(value, op=op, name=name)

    def gather_rows(self, values: Any, name: str) -> Any:
        """Return the rows of all ranks, in the order of ranks; inside a `tf.function` too, but not under XLA.

        Gradients of the rows of a rank are the sums over the ranks: with them, each rank's loss may be any function of
        all rows, and averaged gradients of the weights are those of the mean of the ranks' losses. (Those of Horovod's
        own operation are averages, which are too small by the number of ranks.)

        Args:
            values: float32 or integers [rows, ...], of the same shape on all ranks.
            name: as for `all_reduce_sum`.
        """
        if self.size == 1:
            return values
        import tensorflow as tf

        @tf.custom_gradient
        def gather(own: Any) -> tuple[Any, Callable[[Any], Any]]:
            rows = own.shape[0] if own.shape[0] is not None else tf.shape(own)[0]

            def gradient(received: Any) -> Any:
                return self.all_reduce_sum(received, f"{name}_gradient")[self.rank * rows : (self.rank + 1) * rows]

            with _same_names_on_all_ranks():
                return self._hvd.allgather(own, name=name), gradient

        return gather(values)

    def broadcast_variables(self, variables: Sequence[Any]) -> None:
        """Set variables to the values of rank 0, except the states of seed generators: ranks keep their own randomness.

        Args:
            variables: Keras variables, in the same order on every rank.
        """
        if self.size > 1:
            import tensorflow as tf

            wait_for_ranks()
            shared = [v.value for v in variables if "seed_generator" not in v.path]

            # Numbered, not named after the variables as Horovod's own function does: Keras numbers optimizers by how
            # many a process has made, and ranks that made different numbers would wait for each other forever.
            @tf.function(autograph=False)
            def receive() -> list[Any]:
                return [
                    self._hvd.broadcast(_widened(v), root_rank=0, name=f"variable_{n}") for n, v in enumerate(shared)
                ]

            # Called by its concrete function, because TensorFlow warns of programs that trace the same one often.
            for variable, value in zip(shared, receive.get_concrete_function()(), strict=True):
                variable.assign(tf.cast(value, variable.dtype))

    def average_variables(self, variables: Sequence[Any]) -> None:
        """Replace each floating-point Keras variable, such as a batch-norm statistic, by its mean over the ranks."""
        floats = [v for v in variables if "float" in v.dtype]
        if self.size > 1 and floats:
            import tensorflow as tf

            wait_for_ranks()
            sent = [_widened(v.value) for v in floats]
            means = self._hvd.grouped_allreduce(sent, op=self._hvd.Average, name="variables")
            for variable, mean in zip(floats, means, strict=True):
                variable.assign(tf.cast(mean, variable.dtype))

    def sum_array(self, values: np.ndarray) -> np.ndarray:
        """Return the element-wise sum over the ranks, in float64."""
        if self.size == 1:
            return np.asarray(values, np.float64)
        wait_for_ranks()
        return self._hvd.allreduce(np.asarray(values, np.float64), op=self._hvd.Sum, name="sum").numpy()

    def all_gather_rows(self, values: np.ndarray) -> np.ndarray:
        """Return the arrays of all ranks, which have the same shape, as float64 [ranks, ...] on every rank."""
        rows = np.zeros((self.size, *values.shape))
        rows[self.rank] = values
        return self.sum_array(rows)

    def broadcast_array(self, values: np.ndarray | None) -> np.ndarray:
        """Return rank 0's array in float64 on every rank; the arguments of the other ranks are ignored."""
        shape = self.all_gather(list(values.shape) if values is not None else None)[0]
        return self.sum_array(values if values is not None and self.is_rank0 else np.zeros(shape))

    def sum_values(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the sum over the ranks of each named value; every rank must pass the same names."""
        names = sorted(values)
        return dict(zip(names, self.sum_array(np.array([values[n] for n in names])).tolist(), strict=True))

    def all_gather(self, value: Any) -> list[Any]:
        """Return the JSON-able values of all ranks, in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        wait_for_ranks()
        sent = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self._hvd.allgather(np.array([len(sent)]), name="gather_lengths").numpy()
        received = self._hvd.allgather(sent, name="gather").numpy().tobytes()
        ends = np.cumsum(lengths)
        return [json.loads(received[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    def run_on_rank0(self, make: Callable[[], Any]) -> Any:
        """Call `make` on rank 0 and return its JSON-able result on all ranks.

        Raises:
            UserError: `make` raised it on rank 0; it is raised on every rank.
        """
        outcome: dict[str, Any] = {}
        if self.is_rank0:
            try:
                outcome = {"value": make()}
            except UserError as error:
                outcome = {"error": str(error)}
        outcome = self.all_gather(outcome)[0]
        if "error" in outcome:
            raise UserError(outcome["error"])
        return outcome["value"]


def _widened(value: Any) -> Any:
    """Return a tensor or variable in a dtype that Horovod sends: 16-bit floats as float32, which holds all of them.

    It knows no bfloat16, and sums of float16 could overflow.
    """
    import tensorflow as tf

    return tf.cast(value, tf.float32) if value.dtype in (tf.bfloat16, tf.float16) else value


def _same_names_on_all_ranks() -> AbstractContextManager[Any]:
    """Within a `with` statement, name operations independently of the layer that calls them.

    Ranks wait for an operation of the same name, and TensorFlow prefixes the names of the models and layers around it.
    Keras numbers models without a name by how many a process has made: ranks that have made different numbers of them
    would wait for each other forever.
    """
    import tensorflow as tf

    return tf.name_scope("ranks/")  # the slash begins again at the root


def group_by_size(items: Sequence[Any], sizes: Sequence[int], count: int) -> list[list[Any]]:
    """Divide a sequence into at most `count` groups of neighbours whose total sizes are about equal."""
    groups: list[list[Any]] = [[] for _ in range(count)]
    before, total = 0, sum(sizes)
    for item, size in zip(items, sizes, strict=True):
        groups[min(count - 1, (before + size // 2) * count // max(total, 1))].append(item)
        before += size
    return [group for group in groups if group]
