"""Draw where to erase, then erase: two pure functions, batched, keyed by (seed, epoch, example)."""

from __future__ import annotations

import tensorflow as tf

from tfinpaint.data import stateless


def draw_patches(
    seed: int, epoch: tf.Tensor, examples: tf.Tensor, *, number: int, size: int, height: int, width: int
) -> tf.Tensor:
    """Places of the squares to erase; each lies wholly inside the image, squares may overlap.

    Args:
        seed: of the run.
        epoch: int64 scalar, the pass over the data.
        examples: int64 [batch], indices of the images in the whole data set (not in a rank's share).
        number: squares per image.
        size: side of a square, pixels.
        height, width: of the images, pixels; both at least `size`.

    Returns:
        int32 [batch, number, 2]: top and left of each square.
    """
    patch = tf.range(number, dtype=tf.int64)
    bits = [
        stateless.random_bits(seed, stateless.PATCHES, epoch, examples[:, None], patch[None, :], axis)
        for axis in range(2)
    ]
    tops = stateless.random_integers(bits[0], height - size + 1)
    lefts = stateless.random_integers(bits[1], width - size + 1)
    return tf.stack([tops, lefts], axis=-1)


def patches_to_mask(patches: tf.Tensor, *, size: int, height: int, width: int) -> tf.Tensor:
    """The union of the squares.

    Args:
        patches: int32 [batch, number, 2] from `draw_patches`.

    Returns:
        float32 [batch, height, width, 1]: 1 inside a square, 0 outside.
    """
    tops, lefts = patches[..., 0, None], patches[..., 1, None]
    rows, columns = tf.range(height), tf.range(width)
    in_rows = tf.cast((rows >= tops) & (rows < tops + size), tf.float32)
    in_columns = tf.cast((columns >= lefts) & (columns < lefts + size), tf.float32)
    # [batch, number, height] x [batch, number, width], summed over the squares, counts how often a pixel is covered.
    covered = tf.matmul(in_rows, in_columns, transpose_a=True)
    return tf.cast(covered > 0, tf.float32)[..., None]


def erase(images: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut the masked pixels out: the input keeps the rest, the target keeps the cut, both black elsewhere.

    Args:
        images: float32 [batch, height, width, 3], 0 to 1.
        mask: float32 [batch, height, width, 1], 1 where to erase.

    Returns:
        (inputs, targets), each shaped as `images`; their sum is `images`.
    """
    return images * (1 - mask), images * mask
