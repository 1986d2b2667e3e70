"""Average the gradients of the ranks in front of any Keras optimizer.

Horovod's own wrapper overrides methods that Keras 3 never calls. Here `apply` is replaced, through which Keras hands
gradients to every optimizer, so that loss scaling, accumulation, clipping and averages of weights see averaged
gradients. It is replaced in the object, which keeps its class: what is saved is an optimizer of plain Keras.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tfinpaint.distributed.equality import differences
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError

Gradients = Sequence[Any]  # tensors, IndexedSlices, or None for a weight that has no gradient

UNBUILT = (
    "the model has no weights yet, so that they cannot be equal on all ranks; begin it with keras.Input, or call it on "
    "a batch before it is trained"
)
_numbers = itertools.count()  # ranks wait for operations of the same name: all make their optimizers in the same order


def DistributedOptimizer(optimizer: Any, world: World) -> keras.Optimizer:  # noqa: N802 -- known by this name
    """Have a Keras optimizer average its gradients over the ranks before it uses them, and return it.

    The optimizer itself is changed. With a single rank it stays as it is. `apply` and `apply_gradients` must be called
    by all ranks together, in the same order, with gradients of the same weights. The first call checks that all ranks
    begin with the same weights.

    Args:
        optimizer: a Keras 3 optimizer, or its name or configuration as `compile` takes it. A `LossScaleOptimizer` goes
            in as a whole.

    Raises:
        ValueError: this is no optimizer of Keras 3.
    """
    optimizer = keras.optimizers.get(optimizer)
    if world.size > 1 and averaging_of(optimizer) is None:
        optimizer.apply = GradientAveraging(optimizer, world)
    return optimizer


def averaging_of(optimizer: keras.Optimizer | None) -> GradientAveraging | None:
    """Return the averaging in front of an optimizer; None if there is none."""
    apply = vars(optimizer).get("apply") if optimizer is not None else None
    return apply if isinstance(apply, GradientAveraging) else None


def average_outside(optimizer: keras.Optimizer) -> None:
    """Move the averaging in front of the loss scaling that `compile` has put around an optimizer.

    Inside, each rank would decide by its own gradients whether to take the step, and one might wait for the others.
    """
    inner = averaging_of(getattr(optimizer, "inner_optimizer", None))
    if inner and averaging_of(optimizer) is None:
        del optimizer.inner_optimizer.apply
        DistributedOptimizer(optimizer, inner.world)


class GradientAveraging:
    """The method `apply` of an optimizer, called with the means of the gradients over the ranks.

    Attributes:
        world: the ranks.
    """

    _keeping = False  # whether one of them keeps its gradients, in a step that XLA compiles

    def __init__(self, optimizer: keras.Optimizer, world: World) -> None:
        self.world = world
        self._optimizer, self._apply = optimizer, optimizer.apply
        self._name = f"optimizer_{next(_numbers)}_gradient"
        self._is_first = True
        self._kept: list[tuple[list[Any], list[Any]]] | None = None

    def __call__(self, grads: Gradients, trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        variables = list(self._optimizer._trainable_variables if trainable_variables is None else trainable_variables)
        if self._kept is not None:
            self._kept.append((list(grads), variables))
        elif GradientAveraging._keeping:
            raise UserError(
                "train_step applies gradients by a second optimizer, and XLA can be used with several ranks only if it "
                "does so once, by that of the model; compile the model with jit_compile=False"
            )
        else:
            self.update(self.average(grads, variables), variables)

    def average(self, grads: Gradients, variables: Sequence[keras.Variable]) -> list[Any]:
        """Return the means over the ranks of the gradients of some weights; None stays None."""
        self._prepare(grads, variables)
        places = [place for place, gradient in enumerate(grads) if gradient is not None]
        own = [tf.convert_to_tensor(grads[place]) for place in places]  # rows of an embedding become a whole tensor
        means = self.world.average_gradients([_widen(gradient) for gradient in own], self._name)
        averaged = list(grads)
        for place, gradient, mean in zip(places, own, means, strict=True):
            averaged[place] = tf.cast(mean, gradient.dtype)
        return averaged

    def update(self, averaged: Gradients, variables: Sequence[keras.Variable]) -> None:
        """Update weights by gradients that are averaged already."""
        self._apply(averaged, variables)

    @contextmanager
    def kept(self) -> Iterator[list[tuple[list[Any], list[Any]]]]:
        """Within a `with` statement, keep the gradients and weights of each call in a list, without an update."""
        self._kept, GradientAveraging._keeping = [], True
        try:
            yield self._kept
        finally:
            self._kept, GradientAveraging._keeping = None, False

    def _prepare(self, grads: Gradients, variables: Sequence[keras.Variable]) -> None:
        """Before the first update, build the optimizer and check that the ranks are equal."""
        if not self._is_first:
            return
        if any(getattr(variable, "overwrite_with_gradient", False) for variable in variables):
            raise UserError("weights that are quantized to float8 cannot be trained on several ranks")
        if not self._optimizer.built:
            self._optimizer.build(variables)
        with tf.init_scope():  # now, also where a step is only being traced
            if any(variable.numpy().shape != tuple(variable.shape) for variable in variables):
                raise UserError(UNBUILT)  # made by the function that is being traced, they are empty until it runs
            self._check_equal(grads, variables)
        self._is_first = False

    def _check_equal(self, grads: Gradients, variables: Sequence[keras.Variable]) -> None:
        trained = self.world.all_gather([gradient is not None for gradient in grads])
        if any(each != trained[0] for each in trained):
            raise UserError("the ranks train different weights; expected: the same program with the same model on each")
        # The optimizer has learnt nothing yet; its states are compared at the end of each epoch.
        if found := differences(self.world, variables):
            path = variables[found[0].place].path
            raise UserError(
                f"rank {found[0].ranks[0]} begins with other weights than rank 0 ({len(found)} of {len(variables)} "
                f"differ, the first is {path}), and would never have the same; pass SynchroniseRanks(world) to fit, as "
                "the last callback, or call world.broadcast_variables(model.variables) before the first update"
            )


def _widen(gradient: tf.Tensor) -> tf.Tensor:
    """Return a gradient in a dtype in which a sum over many ranks is exact enough and does not overflow."""
    return gradient if gradient.dtype in (tf.float32, tf.float64) else tf.cast(gradient, tf.float32)
