"""Image metrics agree with values worked out by hand and with scikit-image, on photographs."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from skimage import data
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from skimage.transform import resize

from tfinpaint.inpainting.metrics import MAX_PSNR_DB, METRICS, measure_restoration
from tfinpaint.report.quantities import IMAGE_METRICS

PHOTOS = (data.astronaut, data.chelsea, data.coffee)  # these come with scikit-image itself, without a download


@functools.cache
def photos(height, width, channels=3):
    """float32 [3, height, width, channels]."""
    small = [resize(photo() / 255, (height, width), anti_aliasing=True) for photo in PHOTOS]
    return np.stack(small).astype(np.float32)[..., :channels]


def rectangles(height, width):
    """A hole per photo, [3, height, width, 1]: in the middle, in a corner, at an edge and disjoint."""
    mask = np.zeros((3, height, width, 1), np.float32)
    mask[0, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    mask[1, : height // 3, : width // 2] = 1
    mask[2, height // 2 :, -3:] = mask[2, :4, :4] = 1
    return mask


def test_reports_name_every_metric():
    assert tuple(IMAGE_METRICS) == METRICS


def noisy(originals, seed=0):
    outputs = originals + np.random.default_rng(seed).normal(0, 0.1, originals.shape)
    return np.clip(outputs, 0, 1).astype(np.float32)


def by_scikit_image(original, mask, output):
    """The measurements of one image, in float64."""
    hole = mask[..., 0] > 0
    original = original.astype(np.float64)
    restored = np.where(hole[..., None], output.astype(np.float64), original)
    ssim, ssim_map = structural_similarity(
        original, restored, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0,
        channel_axis=-1, full=True,
    )  # fmt: skip
    values = {}
    for name, a, b in (("hole", original[hole], restored[hole]), ("image", original, restored)):
        values[f"{name}_l1_percent"] = 100 * np.abs(a - b).mean()
        values[f"{name}_l2_percent"] = 100 * mean_squared_error(a, b)
        values[f"{name}_psnr_db"] = peak_signal_noise_ratio(a, b, data_range=1.0)
    return {**values, "hole_ssim": ssim_map[hole].mean(), "image_ssim": ssim}


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (11, 11), (11, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_against_scikit_image(size, channels):
    originals, mask = photos(*size, channels), rectangles(*size)
    outputs = noisy(originals)
    measured = measure_restoration(
        {"originals": tf.constant(originals), "mask": tf.constant(mask)}, tf.constant(outputs)
    )
    assert tuple(measured) == METRICS
    for i in range(len(originals)):
        for name, expected in by_scikit_image(originals[i], mask[i], outputs[i]).items():
            assert measured[name].dtype == tf.float32
            assert measured[name].shape == (3,)
            assert np.isclose(measured[name][i], expected, rtol=2e-7, atol=0), name


def test_ssim_in_flat_bright_regions_against_scikit_image():
    # Here variances are tiny differences of large sums: in float32 the SSIM map is off by up to 6e-4.
    originals = np.full((1, 32, 32, 3), 0.95, np.float32)
    mask = np.zeros((1, 32, 32, 1), np.float32)
    mask[:, 8:20, 8:20] = 1
    outputs = (originals + np.random.default_rng(0).normal(0, 0.005, originals.shape)).astype(np.float32)
    measured = measure_restoration({"originals": originals, "mask": mask}, outputs)
    expected = by_scikit_image(originals[0], mask[0], outputs[0])
    for name in ("hole_ssim", "image_ssim"):
        assert np.isclose(measured[name][0], expected[name], rtol=2e-7, atol=0)


def test_worked_by_hand():
    # A grey image of 0.5, 12 x 20 pixels, its left quarter restored as 0.75 in one channel, 0.5 in the other.
    originals = np.full((1, 12, 20, 2), 0.5, np.float32)
    mask = np.zeros((1, 12, 20, 1), np.float32)
    mask[:, :, :5] = 1
    outputs = originals.copy()
    outputs[..., 0] = 0.75
    measured = measure_restoration({"originals": originals, "mask": mask}, outputs)
    expected = {
        "hole_l1_percent": 12.5,  # (0.25 + 0) / 2
        "hole_l2_percent": 3.125,  # (0.0625 + 0) / 2
        "hole_psnr_db": 15.0514998,  # 10 log10(32)
        "image_l1_percent": 3.125,  # a quarter
        "image_l2_percent": 0.78125,
        "image_psnr_db": 21.0720997,  # 10 log10(128)
    }
    assert {name: float(measured[name][0]) for name in expected} == pytest.approx(expected, rel=1e-7)


def test_ssim_worked_by_hand():
    # All erased, flat 0.5 restored as flat 0.25: no variance; (2 * 0.5 * 0.25 + 0.0001) / (0.25 + 0.0625 + 0.0001)
    originals, mask = np.full((1, 12, 20, 2), 0.5, np.float32), np.ones((1, 12, 20, 1), np.float32)
    measured = measure_restoration({"originals": originals, "mask": mask}, originals / 2)
    assert float(measured["hole_ssim"][0]) == pytest.approx(0.80006402, rel=1e-7)
    assert float(measured["image_ssim"][0]) == pytest.approx(0.80006402, rel=1e-7)


def test_a_perfect_restoration():
    originals, mask = photos(24, 32), rectangles(24, 32)
    measured = measure_restoration({"originals": originals, "mask": mask}, originals)
    for name, values in measured.items():
        best = 0.0 if "percent" in name else MAX_PSNR_DB if "psnr" in name else 1.0
        assert values.numpy().tolist() == [best] * 3, name


def test_outputs_outside_the_hole_do_not_matter_and_those_inside_are_clipped():
    originals, mask = photos(24, 32), rectangles(24, 32)
    batch = {"originals": originals, "mask": mask}
    outputs = noisy(originals)
    assert ((outputs == 1) & (mask == 1)).any()
    assert ((outputs == 0) & (mask == 1)).any()
    beyond = np.where(outputs == 1, 7, np.where(outputs == 0, -3, outputs))
    beyond = np.where(mask == 1, beyond, np.nan).astype(np.float32)
    expected, measured = measure_restoration(batch, outputs), measure_restoration(batch, beyond)
    for name in METRICS:
        assert measured[name].numpy().tolist() == expected[name].numpy().tolist(), name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_with_sizes_unknown_and_outputs_in_half_precision(channels, jit_compile):
    originals, mask = photos(24, 32, channels), rectangles(24, 32)
    batch, outputs = {"originals": originals, "mask": mask}, noisy(originals)
    images, one = tf.TensorSpec([None, None, None, channels]), tf.TensorSpec([None, None, None, 1])
    compiled = tf.function(
        measure_restoration, input_signature=[{"originals": images, "mask": one}, images], jit_compile=jit_compile
    )
    expected, values = measure_restoration(batch, outputs), compiled(batch, outputs)
    for dtype in (tf.float16, tf.bfloat16):
        rounded = tf.cast(outputs, dtype)
        half, widened = measure_restoration(batch, rounded), measure_restoration(batch, tf.cast(rounded, tf.float32))
        for name in METRICS:
            assert np.allclose(values[name], expected[name], rtol=2e-7, atol=0), name
            assert half[name].numpy().tolist() == widened[name].numpy().tolist(), name
