"""Where features are kept, and which rows an example gets."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.data.features import Features, store_features


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, tf.bfloat16.as_numpy_dtype])
def test_features_are_kept_in_memory_or_in_a_file_without_a_name(tmp_path, on_disk, dtype):
    rows = np.arange(5 * 2 * 3).reshape(5, 2, 3).astype(dtype)
    batches = [(rows[at : at + 2], np.arange(5)[at : at + 2]) for at in (0, 2, 4)]
    kept, examples = store_features(batches, rows.shape, np.dtype(dtype), tmp_path if on_disk else None)
    assert isinstance(kept, np.memmap) == on_disk
    assert list(tmp_path.iterdir()) == []
    assert kept.dtype == dtype
    assert np.array_equal(kept, rows)
    assert examples.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_rank_without_images_keeps_no_features(tmp_path, on_disk):
    kept, examples = store_features([], (0, 4), np.dtype(np.float32), tmp_path if on_disk else None)
    assert (kept.shape, examples.shape, examples.dtype) == ((0, 4), (0,), np.int64)


def test_an_example_gets_the_row_of_its_replacement():
    # Rank 1 of 2 has the examples 1, 3, 5, 7; the image of 3 was replaced by that of 5.
    features = Features(np.array([[1.0], [5.0], [5.0], [7.0]], np.float32), np.array([1, 5, 5, 7]), ranks=2)
    ids = features.replaced(tf.constant([7, 3, 1], tf.int64))
    assert ids.numpy().tolist() == [7, 5, 1]
    assert features.gather(ids).numpy().tolist() == [[7.0], [5.0], [1.0]]
