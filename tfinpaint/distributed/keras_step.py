"""Have `fit` exchange gradients outside of XLA, which compiles everything else of a training step.

XLA knows no operation of Horovod. By default Keras compiles the whole step; with several ranks it is divided into
forward and backward pass, the exchange, and the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfinpaint.distributed.batchnorm import all_batchnorms, is_synchronised
from tfinpaint.distributed.keras_optimizer import GradientAveraging
from tfinpaint.errors import UserError

Step = Callable[[Any], Any]


def exchange_outside_xla(model: keras.Model, averaging: GradientAveraging) -> None:
    """Replace what `fit` runs in each step; nothing changes in a model that is not compiled by XLA.

    Synchronised batch norms exchange values within the forward pass, so that nothing of the step is compiled.
    """
    if not model.jit_compile or getattr(model.train_function, "is_divided", False):
        return
    step = model.train_step
    if not any(is_synchronised(layer) for layer in all_batchnorms(model)):
        step = _divide(step, averaging)
    own = vars(model).get("train_step")
    model.train_step, model.jit_compile = step, False  # while `fit`'s function is made of them
    try:
        model.make_train_function(force=True)
        model.train_function.is_divided = True
    finally:
        model.jit_compile = True
        del model.train_step
        if own is not None:
            model.train_step = own


def _divide(train_step: Step, averaging: GradientAveraging) -> Step:
    """Return a step whose passes and whose update are compiled by XLA, and whose exchange is not."""
    variables: list[keras.Variable] = []  # both are known once the passes have been traced
    has_gradient: list[bool] = []

    def passes(data: Any) -> tuple[Any, list[tf.Tensor]]:
        with averaging.kept() as calls:
            logs = train_step(data)
        if len(calls) != 1:
            raise UserError(
                f"train_step applies gradients {len(calls)} times, and XLA can be used with several ranks only if it "
                "does so once; compile the model with jit_compile=False"
            )
        gradients, variables[:] = calls[0]
        has_gradient[:] = [gradient is not None for gradient in gradients]
        return logs, [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]

    def update(present: list[tf.Tensor]) -> None:
        averaging.update(with_gaps(present), variables)

    def with_gaps(present: list[tf.Tensor]) -> list[tf.Tensor | None]:
        rest = iter(present)
        return [next(rest) if has else None for has in has_gradient]

    compiled = {"jit_compile": True, "reduce_retracing": True, "autograph": False}
    compiled_passes, compiled_update = tf.function(passes, **compiled), tf.function(update, **compiled)

    def divided(data: Any) -> Any:
        logs, own = compiled_passes(data)
        averaged = averaging.average(with_gaps(own), variables)
        compiled_update([gradient for gradient in averaged if gradient is not None])
        return logs

    return divided
