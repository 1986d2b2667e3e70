"""Image metrics: the quality of each restored image, one value per image, so that means over ranks stay exact.

The restored image is the composite: the network's output inside the hole, the original outside. A `hole_` metric uses
the pixels of the hole alone, an `image_` metric the whole composite; means are over pixels and channels.

| name             | unit | definition                                            | source                            |
|------------------|------|-------------------------------------------------------|-----------------------------------|
| hole_l1_percent  | %    | 100 * mean absolute error                             | Context Encoders, arXiv           |
| hole_l2_percent  | %    | 100 * mean squared error                              | 1604.07379, section 5.1           |
| hole_psnr_db     | dB   | 10 log10(1 / mean squared error), at most MAX_PSNR_DB | the same                          |
| hole_ssim        |      | mean of the SSIM map over the hole                    | Wang et al., IEEE TIP 13(4), 2004 |
| image_l1_percent | %    | 100 * mean absolute error                             |                                   |
| image_l2_percent | %    | 100 * mean squared error                              |                                   |
| image_psnr_db    | dB   | 10 log10(1 / mean squared error), at most MAX_PSNR_DB |                                   |
| image_ssim       |      | mean of the SSIM map without a border of 5 pixels,    | as scikit-image                   |
|                  |      | whose windows reach beyond the image                  |                                   |

Lower l1 and l2 are better; higher psnr (infinite for a perfect restoration, hence capped) and ssim (at most 1) are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

METRICS = (
    *("hole_l1_percent", "hole_l2_percent", "hole_psnr_db", "hole_ssim"),
    *("image_l1_percent", "image_l2_percent", "image_psnr_db", "image_ssim"),
)
HEADLINE = "hole_psnr_db"  # the metric that logs and charts show first
MAX_PSNR_DB = 100.0  # of a perfect restoration: an infinite value would make every mean infinite

WINDOW_RADIUS, WINDOW_SIGMA = 5, 1.5  # pixels: the 11 x 11 Gaussian window of Wang et al.
C1, C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 of Wang et al., for values from 0 to L = 1


def measure_restoration(batch: Mapping[str, tf.Tensor], outputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return every image metric of a batch of restorations.

    Args:
        batch: "originals", the true images, float32 [batch, height, width, channels], 0 to 1; and "mask", float32
            [batch, height, width, 1], 1 in the hole, 0 outside; every image has a hole. Height and width are at least
            `config.schema.MIN_SSIM_SIDE` pixels.
        outputs: the network's, of the originals' shape and any float type; clipped to 0 and 1.

    Returns:
        float32 [batch] by name, in the order of METRICS.
    """
    # SSIM's variances are small differences of large sums: float32, or TF32 on a GPU, is too coarse in flat regions.
    originals, mask, outputs = (tf.cast(x, tf.float64) for x in (batch["originals"], batch["mask"], outputs))
    restored = tf.where(mask > 0, tf.clip_by_value(outputs, 0.0, 1.0), originals)
    similarity = _ssim_map(originals, restored)
    inner = similarity[:, WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS]
    values = (
        *_errors(originals, restored, mask),
        _mean(similarity, mask),
        *_errors(originals, restored, tf.ones_like(mask)),
        tf.reduce_mean(inner, axis=[1, 2, 3]),
    )
    return {name: tf.cast(value, tf.float32) for name, value in zip(METRICS, values, strict=True)}


def _errors(originals: tf.Tensor, restored: tf.Tensor, region: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return L1 and L2 in percent and PSNR in dB, over the pixels where `region` is 1."""
    difference = restored - originals
    mean_squared = _mean(tf.square(difference), region)
    psnr = -10.0 / math.log(10.0) * tf.math.log(mean_squared)
    return 100.0 * _mean(tf.abs(difference), region), 100.0 * mean_squared, tf.minimum(psnr, MAX_PSNR_DB)


def _mean(values: tf.Tensor, region: tf.Tensor) -> tf.Tensor:
    """Return the mean over channels and the pixels where `region` is 1: [batch, height, width, channels] -> [batch]."""
    by_pixel = tf.reduce_mean(values, axis=-1, keepdims=True)
    return tf.reduce_sum(by_pixel * region, axis=[1, 2, 3]) / tf.reduce_sum(region, axis=[1, 2, 3])


def _ssim_map(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return SSIM at every pixel and channel: Wang et al. 2004, equation 13, with the population's covariance."""
    # One filter over all four as channels is twice as fast as four filters.
    smooth = _gaussian(tf.concat([a, b, tf.square(a) + tf.square(b), a * b], axis=-1))
    mean_a, mean_b, squares, product = tf.split(smooth, 4, axis=-1)
    means_squared, means_product = tf.square(mean_a) + tf.square(mean_b), mean_a * mean_b
    luminance = (2.0 * means_product + C1) / (means_squared + C1)
    structure = (2.0 * (product - means_product) + C2) / (squares - means_squared + C2)
    return luminance * structure


def _gaussian(images: tf.Tensor) -> tf.Tensor:
    """Return the weighted mean over the window around each pixel; images are mirrored at their edges."""
    weights = np.exp(-0.5 * (np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1) / WINDOW_SIGMA) ** 2)
    weights = tf.constant(weights / weights.sum(), images.dtype)
    channels, around = images.shape[-1], [WINDOW_RADIUS, WINDOW_RADIUS]
    padded = tf.pad(images, [[0, 0], around, around, [0, 0]], "SYMMETRIC")
    for height, width in ((-1, 1), (1, -1)):  # a Gaussian is separable: columns first, then rows
        kernel = tf.tile(tf.reshape(weights, [height, width, 1, 1]), [1, 1, channels, 1])
        padded = tf.nn.depthwise_conv2d(padded, kernel, strides=[1, 1, 1, 1], padding="VALID")
    return padded
