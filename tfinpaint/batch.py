"""The contract of a batch: what `data` makes of images, what `models` scores and what `train` steps through.

With `data.views: 2`, training batches hold each image of the rank's share twice, transformed and erased with random
numbers of their own: first the first view of all images, then the second view of all images in the same order. Every
tensor below has both, [2 * share, ...], and the network takes them in one forward pass:

- batch norms take their statistics over both views, when they are recalibrated too;
- a view counts as an image in sums and means of losses and metrics, and in images/s, which is what the network takes;
- `data.batch_size`, the steps of an epoch, the order of the images and the place where a run resumes count images, not
  views; the first view is the one that `data.views: 1` makes, to the byte;
- a batch that is computed in parts (`accumulate_steps`) cannot be divided without separating an image from its
  negatives, so the agreement of views (`loss.agreement`) takes undivided batches;
- features of frozen layers are not kept, because the views of an image differ;
- evaluation, pictures and predictions take a single view, without augmentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast

if TYPE_CHECKING:
    import tensorflow as tf


class ImageBatch(TypedDict, total=False):
    """The tensors of one rank's share of a batch before a task makes inputs and targets of them.

    Attributes:
        images: [batch, height, width, channels]: uint8, or float32 from 0 to 1 after steps that run on pixels; or the
            features that were computed from them.
        targets: as `images`, or label maps, whose values are integers also as float32; only where targets are files of
            their own.
        labels: int32 [batch]: the class of each image.
        examples: int64 [batch]: the place of each image in the listing; of a second view, another number, see
            `data.rng.view_keys`. Random numbers are functions of it.
        epoch: int64 []: the pass over the data, from 0; random numbers are functions of it.
    """

    images: tf.Tensor
    targets: tf.Tensor
    labels: tf.Tensor
    examples: tf.Tensor
    epoch: tf.Tensor


class Batch(TypedDict, total=False):
    """The tensors of one rank's share of a batch. Every key but `inputs` is there only where a task needs it.

    Attributes:
        inputs: float32 [batch, height, width, channels], values 0 to 1 unless a transform normalises them; what the
            network sees, erased where `mask` is 1.
        features: [batch, ...], in place of `inputs`: what the frozen layers of the network have made of them.
        targets: what the outputs are compared with: images, float32 [batch, height, width, channels]; label maps, int32
            [batch, height, width]; or classes, int32 [batch].
        originals: float32, shaped as `inputs`: the images before they were erased.
        mask: float32 [batch, height, width, 1], 1 where a pixel was erased, else 0.
        weights: float32, shaped as `mask`: how much each pixel counts in the loss.
        examples: int64 [batch], in training: the place of each image in the listing.
        shares: float32 [batch], 0 to 1, where images are mixed (`data.mixup`): the share of the image itself.
        order: int64 [batch], before they are mixed: random numbers, by whose order images become partners.
        partners: int32 [batch], once they are mixed: the class of the other image in each of them.
    """

    inputs: tf.Tensor
    features: tf.Tensor
    targets: tf.Tensor
    originals: tf.Tensor
    mask: tf.Tensor
    weights: tf.Tensor
    examples: tf.Tensor
    shares: tf.Tensor
    order: tf.Tensor
    partners: tf.Tensor


def input_of(batch: Batch) -> tf.Tensor:
    """Return the features of a batch where it has them, otherwise its inputs."""
    return batch["features"] if "features" in batch else batch["inputs"]


def tensors_of(batch: Batch) -> dict[str, tf.Tensor]:
    """Return the tensors of a batch by their keys, for code that treats all of them alike."""
    return cast("dict[str, tf.Tensor]", dict(batch))
