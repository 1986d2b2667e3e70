"""Mix the images of a batch of all ranks in pairs (mixup: Zhang et al., arXiv 1710.09412)."""

from __future__ import annotations

from typing import cast

import tensorflow as tf

from tfinpaint.batch import Batch, tensors_of
from tfinpaint.distributed.world import World


class Mixup:
    """Mixes each image with another one of the batch of all ranks: the same one for any number of ranks.

    For that, the ranks exchange their images before each step.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._mix = tf.function(self._mixed, autograph=False, reduce_retracing=True)

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch of this rank with mixed inputs x = s x_1 + (1 - s) x_2, s in "shares".

        "targets" still are the classes of x_1; "partners", in place of "order", are those of x_2.
        """
        return self._mix(dict(batch))

    def _mixed(self, batch: Batch) -> Batch:
        gather, images = self._world.gather_rows, tf.shape(batch["targets"])[0]
        partners = pair_up(gather(batch["order"], "mixup_order"))
        own = partners[self._world.rank * images : (self._world.rank + 1) * images]
        others, classes = (tf.gather(gather(batch[key], f"mixup_{key}"), own) for key in ("inputs", "targets"))
        inputs, shares = batch["inputs"], batch["shares"]
        share = tf.reshape(shares, [-1, *[1] * (len(inputs.shape) - 1)])
        kept = {name: tensor for name, tensor in tensors_of(batch).items() if name != "order"}
        return cast("Batch", {**kept, "inputs": share * inputs + (1.0 - share) * others, "partners": classes})


def pair_up(order: tf.Tensor) -> tf.Tensor:
    """Return int32 [batch]: the row of the partner of each image, the one that follows in the order of these numbers.

    The partner of the last one is the first, so each image is a partner once, and of itself only if it is alone.

    Args:
        order: int64 [batch], random.
    """
    with tf.device("CPU:0"):
        places = tf.argsort(order, stable=True)
        return tf.scatter_nd(places[:, None], tf.roll(places, -1, axis=0), tf.shape(places))
