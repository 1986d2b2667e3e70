"""What is worked out of the measurements; the measuring itself is not tested."""

import sys

import keras
import pytest
from conftest import ROOT
from keras import layers

sys.path.append(str(ROOT / "scripts" / "scaling"))
import measure_scaling_inputs as measure
import scaling_model as model


def test_gradients_come_in_the_order_of_the_backward_pass():
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, strides=2, padding="same")(image)  # 3 * 3 * 3 * 5 at 4 x 4: 2160
    x = layers.Conv2DTranspose(2, 4, strides=2, padding="same", use_bias=False)(x)  # 4 * 4 * 5 * 2 at 4 x 4: 2560
    x = layers.Flatten()(x)
    x = layers.Dense(10)(x)  # 128 * 10: 1280
    network = measure.network(keras.Model(image, x))
    assert network["macs_per_image"] == 6000
    dense, transposed = round(1280 / 6000, 4), round(3840 / 6000, 4)
    assert network["gradients"] == [[40, dense], [5120, dense], [640, transposed], [20, 1.0], [540, 1.0]]


def test_the_link_is_the_one_with_which_the_model_takes_those_seconds():
    link = model.Link(0.0002, 500e6)
    machine = model.Cluster(link, link, ranks_per_host=2, cores_per_host=2, reduce_bytes_per_s=2e9)
    seconds = [machine.all_reduce_s(size, 2) + machine.negotiation_s(2) for size in measure.SIZES]
    assert measure.fit_link(measure.SIZES, seconds, 2e9) == pytest.approx((0.0002, 500e6), rel=2e-3)


def test_the_quietest_third_of_the_steps_counts():
    steps = [{"name": "step", "others": share, "seconds": 1 + share} for share in (0.9, 0.1, 0.5, 0.2, 0.6, 0.7)]
    steps += [{"name": "forward", "others": 0.0, "seconds": 9.0}]
    assert measure.quiet(steps, "step").tolist() == [1.1, 1.2]


def test_a_step_counts_for_the_processor_time_that_it_had():
    assert measure.undisturbed_s(3.0, 4.0, processors=2) == 2.0  # others had the rest of the two processors' 6 s
    assert measure.undisturbed_s(3.0, 6.2, processors=2) == 3.0  # helper threads: the clock knows better


def test_figures_are_shortened_but_counts_are_not():
    assert measure.significant({"a": [0.123456, 1234567], "b": "x"}) == {"a": [0.1235, 1234567], "b": "x"}
