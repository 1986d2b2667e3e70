"""The optimizer's state where a run goes on with other weights to train, in numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.checkpoint.header import Header, RankState, SavedProgress
from tfinpaint.checkpoint.reader import read_progress, restore_training
from tfinpaint.checkpoint.store import TrainingState, save_checkpoint
from tfinpaint.config.optimizer import Optimizer
from tfinpaint.distributed import world
from tfinpaint.errors import UserError
from tfinpaint.models import losses
from tfinpaint.models.trainable import named_variables
from tfinpaint.runs.trained_weights import TrainedBefore, saved_slots, take_over, trained_before_recorded
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.rank_state import rank_state_names
from tfinpaint.train.step import StepOptions
from tfinpaint.train.trainer import Trainer

RATE = {"learning_rate": 0.1}
SECTIONS = [
    Optimizer(type="SGD", **RATE),
    Optimizer(type="SGD", momentum=0.9, dampening=0.5, **RATE),
    Optimizer(type="LARS", momentum=0.9, eta=0.1, **RATE),
    Optimizer(type="Adagrad", lr_decay=0.5, **RATE),
    Optimizer(type="RMSprop", centered=True, momentum=0.9, **RATE),
    Optimizer(type="Adam", **RATE),
    Optimizer(type="AdamW", amsgrad=True, weight_decay=0.1, **RATE),
    Optimizer(type="LAMB", weight_decay=0.1, **RATE),
]
# Those with the most and with the least to keep; the others in the stress tier.
SOME = [
    each if each.type in ("RMSprop", "AdamW") or each is SECTIONS[0] else pytest.param(each, marks=pytest.mark.stress)
    for each in SECTIONS
]
HEADER = Header(
    kind="encoder", epoch=1, step=3, encoder="tiny", encoder_output="before_add", height=32, width=32, batch_size=1,
    steps_per_epoch=3,
)  # fmt: skip


def make(section: Optimizer, *trained: str, scaled: bool = False) -> Trainer:
    """A network of two layers, of which these are trained."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Input((2,)), keras.layers.Dense(3, name="body"), keras.layers.Dense(1, name="head")]
    )
    for layer in model.layers:
        layer.trainable = layer.name in trained
    squared = losses.of_targets(lambda targets, outputs: tf.reduce_mean(tf.square(outputs - targets), axis=1))
    return Trainer(
        model, build_optimizer(section, 3, 2), squared, world=world.World(), step_options=StepOptions(scale_loss=scaled)
    )


def apply(trainer: Trainer, seed: int) -> None:
    """Update every trained weight by a gradient that depends on its name and the seed alone."""
    names = {id(variable): name for name, variable in named_variables(trainer.model).items()}
    weights = trainer.model.trainable_variables
    gradients = []
    for weight in weights:
        generator = np.random.default_rng([seed, *names[id(weight)].encode()])
        gradients.append(tf.constant(generator.normal(size=weight.shape), tf.float32))
    trainer.optimizer.apply(gradients, weights)


def values(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in named_variables(trainer.model).items()}


def states(trainer: Trainer, name: str) -> dict[str, np.ndarray]:
    state = trainer.optimizer.states_of(named_variables(trainer.model)[name])
    return {each: variable.numpy() for each, variable in state.items()}


def save(trainer: Trainer, folder, section: Optimizer):
    ranks = RankState(np.zeros((1, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0), np.int64))
    config = {"optimizer": section.model_dump(mode="json")}
    progress = SavedProgress(
        trained=trainer.trained(), own_names=rank_state_names(trainer.model, statistics=True), config=config
    )
    return save_checkpoint(folder, HEADER, progress, ranks, TrainingState(trainer.model, trainer.optimizer, None), 1)


def go_on(path, trainer: Trainer) -> Trainer:
    progress = read_progress(path)
    before = trained_before_recorded(progress)
    slots = saved_slots(before, trainer, progress.config)
    restore_training(path, TrainingState(trainer.model, trainer.optimizer, None), slots)
    take_over(before, trainer)
    return trainer


@pytest.mark.parametrize("scaled", [False, pytest.param(True, marks=pytest.mark.stress)])
@pytest.mark.parametrize("section", SOME, ids=lambda section: section.type)
def test_what_was_trained_goes_on_and_what_is_new_begins(tmp_path, section, scaled):
    frozen = make(section, "head", scaled=scaled)
    for seed in range(3):
        apply(frozen, seed)
    if scaled:
        frozen.optimizer.variables[-2].assign(64.0)
    before = {name: states(frozen, name) for name in ("head/kernel", "head/bias")}
    both = go_on(save(frozen, tmp_path, section), make(section, "body", "head", scaled=scaled))
    assert int(both.optimizer.iterations) == 3
    for name, state in before.items():
        for each, value in states(both, name).items():
            assert np.array_equal(value, state[each]), (name, each)
    assert not any(value.any() for value in states(both, "body/kernel").values())
    if scaled:
        assert both.optimizer.variables[-2].numpy() == 64.0
    # The next step: of the head as if nothing had changed, of the body as the first one of a run of its own.
    alone = make(section, "body", scaled=scaled)
    for trainer in (frozen, both, alone):
        apply(trainer, 3)
    for name, value in values(both).items():
        expected = values(frozen if name.startswith("head") else alone)[name]
        assert np.allclose(value, expected, rtol=1e-6, atol=1e-7), name
    assert both.trained() == {"body/kernel": 1, "body/bias": 1, "head/kernel": 4, "head/bias": 4}


def test_averages_continue_and_those_of_new_weights_begin(tmp_path):
    section = Optimizer(type="Adam", ema_decay=0.75, **RATE)
    frozen = make(section, "head")
    for seed in range(3):
        apply(frozen, seed)
    trained = values(frozen)
    frozen.use_averages(True)
    averaged, path = values(frozen), save(frozen, tmp_path, section)
    assert not np.array_equal(trained["head/kernel"], averaged["head/kernel"])
    both = go_on(path, make(section, "body", "head"))
    for name, value in values(both).items():
        assert np.array_equal(value, averaged[name]), name
    alone = make(section, "body")
    for trainer in (frozen, both, alone):
        trainer.use_averages(False)
        if trainer is both:
            assert all(np.array_equal(value, trained[name]) for name, value in values(both).items())
        apply(trainer, 3)
        trainer.use_averages(True)
    for name, value in values(both).items():
        expected = values(frozen if name.startswith("head") else alone)[name]
        assert np.allclose(value, expected, rtol=1e-6, atol=1e-7), name
    # Without averages the run continues with what was trained.
    plain = go_on(path, make(section.model_copy(update={"ema_decay": None}), "head"))
    assert all(np.array_equal(value, trained[name]) for name, value in values(plain).items())


@pytest.mark.parametrize("section", SOME, ids=lambda section: section.type)
def test_freezing_drops_a_state_and_keeps_those_around_it(tmp_path, section):
    both = make(section, "body", "head")
    for seed in range(2):
        apply(both, seed)
    body = go_on(save(both, tmp_path, section), make(section, "body"))
    assert body.trained() == {"body/kernel": 2, "body/bias": 2}
    for trainer in (both, body):
        apply(trainer, 2)
    assert np.array_equal(values(body)["body/kernel"], values(both)["body/kernel"])
    again = go_on(save(body, tmp_path, section), make(section, "body", "head"))  # the head begins from the start
    assert again.trained() == {"body/kernel": 3, "body/bias": 3, "head/kernel": 0, "head/bias": 0}
    assert np.array_equal(values(again)["head/kernel"], values(body)["head/kernel"])
    assert not any(value.any() for value in states(again, "head/kernel").values())


def test_ages_stay_where_steps_are_counted_again(tmp_path):
    section = SECTIONS[5]
    head = make(section, "head")
    for seed in range(3):
        apply(head, seed)
    both, unmoved = (go_on(save(head, tmp_path, section), make(section, "body", "head")) for _ in range(2))
    both.place(1)  # of larger batches
    assert both.trained() == {"body/kernel": 0, "body/bias": 0, "head/kernel": 3, "head/bias": 3}
    for trainer in (both, unmoved):
        apply(trainer, 3)
    assert int(both.optimizer.iterations) == 2
    assert all(np.array_equal(value, values(unmoved)[name]) for name, value in values(both).items())


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        (Optimizer(type="SGD", **RATE), Optimizer(type="SGD", momentum=0.9, **RATE), set()),
        (Optimizer(type="SGD", momentum=0.9, **RATE), Optimizer(type="SGD", **RATE), set()),
        (Optimizer(type="Adam", **RATE), Optimizer(type="Adam", amsgrad=True, **RATE), {"m", "v"}),
        (Optimizer(type="RMSprop", centered=True, **RATE), Optimizer(type="RMSprop", momentum=0.9, **RATE), {"square"}),
    ],
)
def test_an_optimizer_that_keeps_other_numbers_takes_over_those_it_can(tmp_path, before, now, kept):
    first = make(before, "head")
    apply(first, 0)
    second = go_on(save(first, tmp_path, before), make(now, "body", "head"))
    ours, theirs = states(second, "head/kernel"), states(first, "head/kernel")
    assert {name for name, value in ours.items() if value.any()} == kept
    assert all(np.array_equal(ours[name], theirs[name]) for name in kept)


def test_weights_that_the_model_does_not_have_are_told():
    with pytest.raises(
        UserError, match="the checkpoint has the optimizer state of tail/kernel, which this model does not have"
    ):
        saved_slots(TrainedBefore(("head/kernel", "tail/kernel"), (), None), make(SECTIONS[0], "head"), {})
    assert trained_before_recorded(SavedProgress()) is None  # of an older version
