"""The random numbers of mixup: functions of seed, epoch and example, with the distribution that they should have."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import beta, kstest

from tfinpaint.data.mixing import draw_mixing


def draw(examples, epoch=3, seed=5, alpha=0.2):
    share, order = draw_mixing(seed, tf.constant(epoch, tf.int64), tf.constant(examples, tf.int64), alpha)
    return share.numpy(), order.numpy()


def test_they_depend_on_seed_epoch_and_example_alone():
    share, order = draw([4, 0, 7])
    assert (share.dtype, order.dtype) == (np.float32, np.int64)
    for place, example in enumerate([4, 0, 7]):
        one, other = draw([example])
        assert (one[0], other[0]) == (share[place], order[place])
    for changed in ({"epoch": 4}, {"seed": 6}):
        assert not np.array_equal(draw([4, 0, 7], **changed)[1], order)
    np.testing.assert_allclose(share, [0.14069517, 0.15712668, 0.99479741], rtol=1e-6)
    assert (order >= 0).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_have_the_beta_distribution(alpha):
    share, order = draw(np.arange(5000), alpha=alpha)
    assert kstest(share, beta(alpha, alpha).cdf).pvalue > 0.01
    assert len(np.unique(order)) == 5000
