"""Copies of networks have Keras' own layers alone, and compute the same."""

import keras
import numpy as np
import pytest
from keras import layers

from tfinpaint.errors import UserError
from tfinpaint.exporting.plain import plain_copy
from tfinpaint.models.encoder import build_encoder
from tfinpaint.models.keras_json.build import _keras2_hard_sigmoid
from tfinpaint.models.networks import LayerScale
from tfinpaint.models.transposed import Conv2DTranspose


def same(model: keras.Model, copy: keras.Model, shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert [layer for layer in copy.layers if not type(layer).__module__.startswith("keras.")] == []
    np.testing.assert_allclose(copy(inputs), model(inputs), rtol=1e-4, atol=1e-5)


def test_layers_of_this_program_become_those_of_keras():
    images = keras.Input((4, 4, 128))
    x = LayerScale(name="scale")(images)
    x = Conv2DTranspose(8, 4, strides=2, padding="same", name="up")(x)
    model = keras.Model(images, x)
    model.get_layer("scale").gamma.assign(np.linspace(0.5, 2, 128))
    same(model, plain_copy(model), (2, 4, 4, 128))


def test_an_encoder_is_copied_for_images_of_any_size():
    model = build_encoder("tiny", "after_relu", 32, 32)
    for norm in [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]:
        norm.moving_mean.assign(np.full(norm.moving_mean.shape, 0.3))
    copy = plain_copy(model, any_size=True)
    assert copy.input_shape == (None, None, None, 3)
    same(model, copy, (2, 32, 32, 3))
    assert copy(np.zeros((1, 96, 64, 3))).shape == (1, 3, 2, 128)


def test_what_keras_does_not_have_is_refused():
    images = keras.Input((4, 4, 3))
    model = keras.Model(images, layers.Activation(_keras2_hard_sigmoid, name="hard")(images))
    with pytest.raises(UserError, match="layer hard: computes what no layer"):
        plain_copy(model)
