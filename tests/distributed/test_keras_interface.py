"""What anybody's Keras program sees of `tfinpaint.distributed`, on ranks that are pretended in one process."""

import subprocess
import sys
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

from tfinpaint.distributed import (
    DistributedOptimizer,
    OnRank0,
    SynchroniseRanks,
    World,
    join,
    scaled_rate,
    shard,
    synchronise_batchnorm,
)
from tfinpaint.distributed.environment import _SIZE_VARIABLES
from tfinpaint.distributed.keras_optimizer import average_outside, averaging_of
from tfinpaint.errors import UserError


class Twin(World):
    """One of two ranks, the other of which does, sends and holds the same."""

    def __init__(self, rank=0):
        super().__init__()
        self.rank, self.size = rank, 2
        self.averaged = []

    def average_gradients(self, gradients, name="gradient"):
        self.averaged.append((name, [gradient.dtype for gradient in gradients]))
        return [tf.identity(gradient) for gradient in gradients]

    def all_gather(self, value):
        return [value, value]

    def sum_array(self, values):
        return 2.0 * np.asarray(values, np.float64)

    def broadcast_variables(self, variables):
        pass

    def broadcast_array(self, values):
        return np.asarray(values, np.float64)

    def average_variables(self, variables):
        pass


@pytest.fixture
def xla(monkeypatch):
    """Let Keras use XLA although a test before this one has made operations deterministic."""
    monkeypatch.setattr(tf_config, "is_op_determinism_enabled", lambda: False)


def build(**options):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, **options)])


def test_importing_the_names_imports_no_tensorflow_and_no_command():
    code = (
        "import sys; from tfinpaint.distributed import join, shard, World; print(join().size)\n"
        "assert not {'tensorflow', 'keras', 'horovod'} & set(sys.modules)\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('tfinpaint.')}\n"
        "assert rooms <= {'config', 'distributed', 'errors', 'layout', 'storage', 'system', 'version'}, rooms"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_single_process_is_left_as_it_is(monkeypatch):
    for name in _SIZE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    hook = sys.excepthook
    world = join()
    optimizer = keras.optimizers.SGD()
    assert (world.size, sys.excepthook) == (1, hook)
    assert DistributedOptimizer(optimizer, world) is optimizer
    assert "apply" not in vars(optimizer)
    model = build()
    model.compile(optimizer, "mse")
    train_function = model.train_function
    callback = SynchroniseRanks(world)
    callback.set_model(model)
    callback.on_train_begin()
    assert model.train_function is train_function
    assert "_get_metrics_result_or_logs" not in vars(model)


def test_gradients_are_averaged_once_densely_and_in_their_own_dtype():
    world = Twin()
    table = keras.Variable(np.zeros((4, 2), "float32"))
    weight = keras.Variable(np.ones(2), dtype="bfloat16")
    unused = keras.Variable([1.0])
    optimizer = DistributedOptimizer(DistributedOptimizer(keras.optimizers.SGD(1.0), world), world)
    rows = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 1]), tf.constant([4, 2]))
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply_gradients([(rows, table), (tf.ones(2, "bfloat16"), weight), (None, unused)])
    assert table.numpy()[:, 0].tolist() == [0.0, -2.0, 0.0, 0.0]
    assert (weight.numpy().tolist(), unused.numpy().tolist()) == ([0.0, 0.0], [1.0])
    assert [dtypes for _, dtypes in world.averaged] == [[tf.float32, tf.float32]]
    other = DistributedOptimizer(keras.optimizers.SGD(), world)
    other.apply([tf.ones(2)], [keras.Variable([1.0, 1.0])])
    assert world.averaged[0][0] != world.averaged[1][0]  # two networks may exchange at the same time


def test_averaging_moves_in_front_of_a_loss_scaling():
    world = Twin()
    inner = DistributedOptimizer(keras.optimizers.SGD(), world)
    outer = keras.optimizers.LossScaleOptimizer(inner)
    average_outside(outer)
    average_outside(outer)
    assert averaging_of(inner) is None
    assert averaging_of(outer).world is world
    weight = keras.Variable([1.0])
    outer.apply([tf.constant([np.inf])], [weight])
    assert (len(world.averaged), weight.numpy().tolist()) == (1, [1.0])


def test_ranks_that_begin_with_other_weights_are_told(monkeypatch):
    world = Twin(rank=1)
    monkeypatch.setattr(world, "all_gather", lambda value: [[True] if value == [True] else ["other"], value])
    weight = keras.Variable([1.0], name="mine")
    optimizer = DistributedOptimizer("sgd", world)
    step = tf.function(lambda: optimizer.apply([tf.ones(1)], [weight]))
    with pytest.raises(UserError, match=r"rank 1 begins with other weights than rank 0 \(1 of 1 differ, .* mine\)"):
        step()
    assert weight.numpy().tolist() == [1.0]


@pytest.mark.parametrize("callbacks", [[SynchroniseRanks(Twin())], []])
def test_a_model_that_fit_would_build_is_refused(callbacks):
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile(DistributedOptimizer("sgd", Twin()), "mse", jit_compile=False)
    with pytest.raises(UserError, match=r"the model has no weights yet.*keras\.Input"):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=callbacks)


def test_an_optimizer_that_does_not_average_is_refused():
    model = build()
    model.compile("sgd", "mse")
    with pytest.raises(UserError, match=r"does not average gradients.*DistributedOptimizer"):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[SynchroniseRanks(Twin())])


def test_a_saved_model_is_one_of_plain_keras(tmp_path):
    model = build()
    optimizer = DistributedOptimizer(keras.optimizers.Adam(scaled_rate(0.01, 2, 5)), Twin())
    model.compile(optimizer, "mse", jit_compile=False)
    model.fit(np.ones((4, 3)), np.ones((4, 2)), callbacks=[SynchroniseRanks(Twin())], verbose=0)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys; sys.modules['tfinpaint'] = None; import keras\n"
        f"model = keras.models.load_model({str(tmp_path / 'model.keras')!r})\n"
        "print(type(model.optimizer).__name__, int(model.optimizer.iterations), float(model.optimizer.learning_rate))\n"
        "print([float(v.numpy().sum()) for v in model.variables + model.optimizer.variables])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.split()[:2] == ["Adam", "1"]
    assert float(first.split()[2]) == pytest.approx(0.01 * 1.2)
    assert second == str([float(v.numpy().sum()) for v in model.variables + model.optimizer.variables])


def test_xla_compiles_all_but_the_exchange_and_only_once(xla):
    world = Twin()
    model = build()
    model.compile(DistributedOptimizer("sgd", world), "mse", jit_compile=True)
    options = {"verbose": 0, "callbacks": [SynchroniseRanks(world)]}
    model.fit(np.ones((4, 3)), np.ones((4, 2)), 2, **options)
    function = model.train_function
    model.fit(np.ones((4, 3)), np.ones((4, 2)), 2, **options)
    assert model.train_function is function
    assert model.jit_compile
    assert "train_step" not in vars(model)
    assert len(world.averaged) == 1  # traced once


def test_a_step_that_updates_twice_is_refused_under_xla(xla):
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, inputs):
            return self.dense(inputs)

        def train_step(self, batch):
            super().train_step(batch)
            return super().train_step(batch)

    model = Twice()
    world = Twin()
    model(np.ones((1, 3)))  # makes its weights
    model.compile(DistributedOptimizer("sgd", world), "mse", jit_compile=True)
    with pytest.raises(UserError, match=r"train_step applies gradients 2 times.*jit_compile=False"):
        model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0, callbacks=[SynchroniseRanks(world)])


def test_a_second_optimizer_is_refused_under_xla(xla):
    world = Twin()

    class Adversary(keras.Sequential):
        def train_step(self, batch):
            logs, weights = super().train_step(batch), self.trainable_variables
            second.apply([tf.ones_like(weight) for weight in weights], weights)
            return logs

    for compiled in (True, False):
        second, model = DistributedOptimizer("sgd", world), Adversary([keras.Input((3,)), *build().layers])
        model.compile(DistributedOptimizer("sgd", world), "mse", jit_compile=compiled)
        options = {"verbose": 0, "callbacks": [SynchroniseRanks(world)]}
        if compiled:
            with pytest.raises(UserError, match=r"by a second optimizer.*jit_compile=False"):
                model.fit(np.ones((4, 3)), np.ones((4, 2)), **options)
        else:
            model.fit(np.ones((4, 3)), np.ones((4, 2)), **options)


def test_metrics_are_results_of_sums_over_the_ranks_also_in_an_evaluation_alone():
    model = build(kernel_initializer="zeros", bias_initializer="ones")
    metrics = [keras.metrics.TruePositives(name="hits"), "mae"]
    model.compile(DistributedOptimizer("sgd", Twin()), "mse", metrics=metrics)
    data = {"x": np.ones((3, 3)), "y": np.array([[0, 1], [1, 1], [0, 0]]), "verbose": 0, "return_dict": True}
    found = model.evaluate(**data, callbacks=[SynchroniseRanks(Twin())])
    assert found == pytest.approx({"loss": 0.5, "mae": 0.5, "hits": 2 * 3})
    assert model.evaluate(**data)["hits"] == 3


def test_a_callback_of_rank_0_does_nothing_elsewhere():
    calls = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: calls.append(epoch))
    for rank in (0, 1):
        OnRank0(callback, Twin(rank)).on_epoch_end(rank, {})
    assert calls == [0]


@pytest.mark.parametrize("length", [7, 8])
def test_shares_are_equal_or_complete(length):
    numbers = np.arange(length)
    data = {"image": numbers, "label": (numbers + 100, [numbers + 200])}
    for drop in (True, False):
        shares = [shard(data, Twin(rank), drop_remainder=drop) for rank in (0, 1)]
        kept = length - length % 2 if drop else length
        assert sorted(np.concatenate([share["image"] for share in shares])) == list(range(kept))
        assert [share["label"][1][0][0] for share in shares] == [200, 201]
        dataset = tf.data.Dataset.from_tensor_slices(numbers)
        again = [[int(n) for n in shard(dataset, Twin(rank), drop_remainder=drop)] for rank in (0, 1)]
        assert again == [share["image"].tolist() for share in shares]


def test_shares_of_a_named_tuple_keep_their_names():
    class Pair(NamedTuple):
        image: np.ndarray
        label: np.ndarray

    share = shard(Pair(np.arange(4), np.arange(4) + 10), Twin(1))
    assert (share.image.tolist(), share.label.tolist()) == ([1, 3], [11, 13])


def test_a_shuffled_dataset_has_the_same_order_for_any_number_of_ranks():
    def dataset():
        return tf.data.Dataset.range(10).shuffle(10, seed=1)

    whole = shard(dataset(), World())
    halves = [shard(dataset(), Twin(rank)) for rank in (0, 1)]
    for _ in range(2):
        first, second = ([int(n) for n in half] for half in halves)
        together = [n for pair in zip(first, second, strict=True) for n in pair]
        assert together == [int(n) for n in whole]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tf.data.Dataset.range(4).repeat(), "has no end; .* divide it before `repeat`"),
        (tf.data.Dataset.range(4).filter(lambda n: n > 1), r"an unknown length; .*assert_cardinality"),
        ((np.ones(3), np.ones(4)), "arrays of 3 and 4 examples"),
        (np.ones(1), "1 examples cannot be divided among 2 ranks"),
        (["a.png", "b.png"], r"type str cannot be divided among ranks; expected: .*np\.asarray"),
        ((np.ones(4), [1, 2, 3, 4]), "type int cannot be divided"),
        (iter([np.ones(4)]), "type list_iterator cannot be divided"),
    ],
)
def test_data_that_cannot_be_divided_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        shard(data, Twin())


def test_a_rate_rises_to_its_multiple():
    assert scaled_rate(0.1, 4) == pytest.approx(0.4)
    rising = scaled_rate(0.1, 4, warmup_steps=10)
    assert type(rising) is keras.optimizers.schedules.PolynomialDecay
    falling = scaled_rate(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), 4, warmup_steps=10)
    falling = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(falling))
    for step, factor in ((0, 1.0), (5, 2.5), (10, 4.0), (20, 4.0)):
        assert float(rising(step)) == pytest.approx(0.1 * factor)
        assert float(falling(step)) == pytest.approx(0.1 * factor * 0.5 ** (step / 10))


def test_batch_norms_of_a_model_in_a_model_are_synchronised():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((3,)), inner, keras.layers.BatchNormalization()])

    class Pair(Twin):
        def all_reduce_mean(self, value, name):
            self.averaged.append(name)
            return value

    world = Pair()
    synchronise_batchnorm(model, world)
    model(np.ones((2, 3), "float32"), training=True)
    assert len(world.averaged) == 2
    assert len(set(world.averaged)) == 2
