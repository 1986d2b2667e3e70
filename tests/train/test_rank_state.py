"""What ranks have alone: given back to as many ranks, averaged for others, refused for another model."""

import keras
import numpy as np
import pytest

from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.train.rank_state import rank_state, rank_state_names, restore_rank_state


def test_what_a_rank_had_is_restored_or_averaged():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
    norm, dropout = model.layers
    norm.moving_mean.assign([1.0, 2.0, 3.0])
    names, seed = rank_state_names(model, statistics=True), dropout.seed_generator.state.numpy().tolist()
    own = rank_state(model, statistics=True)
    assert own.tolist() == [1, 2, 3, 1, 1, 1, *seed]
    restore_rank_state(model, World(), np.stack([own, own + 1]), names)  # of two ranks
    assert norm.moving_mean.numpy().tolist() == [1.5, 2.5, 3.5]
    assert dropout.seed_generator.state.numpy().tolist() == seed
    restore_rank_state(model, World(), own[None] + 2, names)
    assert norm.moving_mean.numpy().tolist() == [3, 4, 5]
    assert dropout.seed_generator.state.numpy().tolist() == [value + 2 for value in seed]
    assert rank_state(model, statistics=False).tolist() == [value + 2 for value in seed]
    without = rank_state_names(model, statistics=False)  # the statistics stay as they are
    restore_rank_state(model, World(), np.array([seed], np.float64), without)
    assert norm.moving_mean.numpy().tolist() == [3, 4, 5]
    assert dropout.seed_generator.state.numpy().tolist() == seed
    with pytest.raises(UserError, match="those of another model"):
        restore_rank_state(model, World(), np.zeros((1, 3)), names)
