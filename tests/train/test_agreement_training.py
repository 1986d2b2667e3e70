"""The agreement of two views in a trainer: one step against separate tapes, both weights at 0 and 1, what is measured."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.config.loss import Agreement, Loss
from tfinpaint.distributed.world import World
from tfinpaint.models.agreement import build_agreement, build_projector
from tfinpaint.models.decoder import build_inpainter, encoder_part
from tfinpaint.models.encoder import block_ends, build_encoder
from tfinpaint.models.loss_terms import AgreementTerm
from tfinpaint.models.losses import build_objective
from tfinpaint.models.trainable import freeze_behind, set_trainable
from tfinpaint.train.step import StepOptions
from tfinpaint.train.trainer import Trainer

STRESS = pytest.mark.stress
LAYER = "conv5_block1_out"
SECTIONS = {
    "nt_xent": Agreement(projector=[16, 8]),
    "vicreg": Agreement(type="vicreg", projector=[16, 8]),
    "barlow_twins": Agreement(type="barlow_twins", projector=[16, 8]),
}


def make_model():
    keras.utils.set_random_seed(0)
    return build_inpainter(build_encoder("tiny", "after_relu", 32, 32))


def make_batch(images=8, seed=0):
    """Return two views with holes of several heights; some views are whole."""
    originals = np.random.default_rng(seed).random((2 * images, 32, 32, 3), np.float32)
    mask = np.zeros((2 * images, 32, 32, 1), np.float32)
    for place in range(2 * images):
        mask[place, : 2 * (place % 5), :16] = 1
    parts = {"inputs": originals * (1 - mask), "targets": originals, "mask": mask, "weights": mask}
    return {name: tf.constant(values) for name, values in parts.items()}


def make_trainer(section, *, weight=1.0, reconstruction_weight=1.0, model=None, rate=0.5, **options):
    model = model or make_model()
    term = AgreementTerm(
        build_projector(128, section.widths), keras.optimizers.SGD(rate), build_agreement(section), weight, LAYER,
        gather=lambda rows: rows,
    )  # fmt: skip
    objective = build_objective(Loss(function="MSE", target="masked"), "sigmoid", by_pixel=True)
    return Trainer(
        model, keras.optimizers.SGD(rate), objective, agreement_term=term,
        reconstruction_weight=reconstruction_weight, world=World(), **options,
    )  # fmt: skip


def gradients_of_tapes(trainer, batch, compare, weight, reconstruction_weight):
    """Return both parts of the loss, and the gradients of model and projector, from a tape of their own."""
    model, projector = trainer.model, trainer.agreement_term.projector
    both = keras.Model(model.input, [model.output, model.get_layer(LAYER).output])
    with tf.GradientTape() as tape:
        outputs, features = both(batch["inputs"], training=True)
        squares = tf.reduce_sum(batch["weights"] * tf.square(outputs - batch["targets"])) / 3
        restored = squares / tf.reduce_sum(batch["weights"])
        projected = projector(tf.reduce_mean(features, axis=[1, 2]), training=True)
        agreement = tf.reduce_mean(compare(projected, projected, 0))
        loss = reconstruction_weight * restored + weight * agreement
    trained = [*model.trainable_variables, *projector.trainable_variables]
    return float(restored), float(agreement), tape.gradient(loss, trained, unconnected_gradients="zero")


def restore(model, values):
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)


@pytest.mark.parametrize(
    ("name", "reconstruction_weight", "weight", "options"),
    [
        ("nt_xent", 0.5, 2.0, "frozen, recompute"),
        ("vicreg", 0.0, 1.0, ""),
        *(
            pytest.param(*case, marks=STRESS)
            for case in [
                *((name, 0.5, 2.0, "") for name in SECTIONS),
                ("nt_xent", 1.0, 0.0, ""),
                ("nt_xent", 0.0, 1.0, ""),
                ("nt_xent", 0.5, 2.0, "recompute"),
                ("nt_xent", 0.0, 1.0, "recompute"),
                ("nt_xent", 0.5, 2.0, "frozen"),
            ]
        ),
    ],
)
def test_one_step_is_that_of_a_tape_of_its_own(name, reconstruction_weight, weight, options):
    section, batch, model = SECTIONS[name], make_batch(), make_model()
    if "frozen" in options:
        set_trainable(model, ["conv4_*", "conv5_*", "decoder_*"])
    if not reconstruction_weight:
        freeze_behind(model, encoder_part(model, LAYER))
    trainer = make_trainer(
        section, model=model, weight=weight, reconstruction_weight=reconstruction_weight,
        step_options=StepOptions(recompute=block_ends("tiny", model) if "recompute" in options else ()),
    )  # fmt: skip
    networks = (model, trainer.agreement_term.projector)
    before = [[variable.numpy() for variable in network.variables] for network in networks]
    restored, agreement, gradients = gradients_of_tapes(
        trainer, batch, build_agreement(section), weight, reconstruction_weight
    )
    statistics = [[v.numpy() for v in network.non_trainable_variables] for network in networks]
    for network, values in zip(networks, before, strict=True):
        restore(network, values)
    starts = [v.numpy() for network in networks for v in network.trainable_variables]
    values = trainer.train_steps(iter([batch]), 1).values
    assert values["agreement_loss"] == pytest.approx(agreement, rel=1e-5)
    assert values["loss"] == pytest.approx(reconstruction_weight * restored + weight * agreement, rel=1e-5)
    if reconstruction_weight:
        assert values["reconstruction_loss"] == pytest.approx(restored, rel=1e-5)
    else:
        assert "reconstruction_loss" not in values
    after = [v for network in networks for v in network.trainable_variables]
    most = max(float(tf.reduce_max(tf.abs(gradient))) for gradient in gradients)
    for variable, start, gradient in zip(after, starts, gradients, strict=True):
        # Biases in front of batch norms have gradients that are rounding errors.
        allowed = 2e-3 * float(tf.reduce_max(tf.abs(gradient))) + 1e-4 * most
        assert np.abs((start - variable.numpy()) / 0.5 - gradient).max() <= allowed, variable.path
    for network, wanted in zip(networks, statistics, strict=True):  # batch norms saw both views, once
        for variable, value in zip(network.non_trainable_variables, wanted, strict=True):
            assert np.allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6), variable.path


def test_evaluation_takes_a_single_view_and_scores_the_reconstruction_alone():
    trainer, batch = make_trainer(SECTIONS["nt_xent"], reconstruction_weight=0.5), make_batch(3)
    odd = {name: values[:5] for name, values in batch.items()}
    values = trainer.evaluate([odd]).values
    outputs = trainer.model(odd["inputs"], training=False)
    restored = tf.reduce_sum(odd["weights"] * tf.square(outputs - odd["targets"])) / 3 / tf.reduce_sum(odd["weights"])
    assert values["reconstruction_loss"] == pytest.approx(float(restored), rel=1e-5)
    assert values["loss"] == pytest.approx(0.5 * float(restored), rel=1e-5)
    assert "agreement_loss" not in values


@pytest.mark.parametrize(
    ("reconstruction_weight", "weight"),
    [(0.5, 2.0), pytest.param(1.0, 0.0, marks=STRESS), pytest.param(0.0, 1.0, marks=STRESS)],
)
def test_measures_are_those_of_the_batch_and_leave_the_model_as_it_is(reconstruction_weight, weight):
    section, batch = SECTIONS["nt_xent"], make_batch()
    trainer = make_trainer(section, weight=weight, reconstruction_weight=reconstruction_weight)
    before = [v.numpy() for m in (trainer.model, trainer.agreement_term.projector) for v in m.variables]
    found = trainer.measure_views(batch)
    after = [v.numpy() for m in (trainer.model, trainer.agreement_term.projector) for v in m.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert trainer.measure_views(batch) == found

    encoder = encoder_part(trainer.model, LAYER)
    names = {variable.path for variable in encoder.trainable_variables}
    for part, share, weights in (
        ("reconstruction", reconstruction_weight, (0.0, reconstruction_weight)),
        ("agreement", weight, (weight, 0.0)),
    ):
        if part == "reconstruction" and not share:
            assert "reconstruction_gradient_norm" not in found
            continue
        _, _, gradients = gradients_of_tapes(trainer, batch, build_agreement(section), *weights)
        own = [g for g, v in zip(gradients, trainer.model.trainable_variables, strict=False) if v.path in names]
        assert found[f"{part}_gradient_norm"] == pytest.approx(float(tf.linalg.global_norm(own)), rel=1e-3, abs=1e-9)
    features = tf.reduce_mean(encoder(batch["inputs"], training=True), axis=[1, 2]).numpy().astype(np.float64)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert found["alignment"] == pytest.approx(np.square(rows[:8] - rows[8:]).sum(axis=1).mean(), rel=1e-4)
    shares = np.linalg.svd(features, compute_uv=False)
    shares /= shares.sum()
    assert found["rankme"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares + 1e-12))), rel=1e-3)


def test_measured_gradients_are_those_of_steps_that_recompute_blocks_over_visible_positions():
    batch, found = make_batch(), []
    for recompute in ((), block_ends("tiny", make_model())):
        trainer = make_trainer(SECTIONS["nt_xent"], step_options=StepOptions(visible_only=True, recompute=recompute))
        found.append(trainer.measure_views(batch))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_small_gradients_are_measured_although_they_are_sent_as_float16(monkeypatch):
    weights = {"weight": 1e-5, "reconstruction_weight": 1e-5}
    expected = make_trainer(SECTIONS["nt_xent"], **weights).measure_views(make_batch())
    trainer = make_trainer(SECTIONS["nt_xent"], **weights, step_options=StepOptions(scale_loss=True))

    def sent(gradients):
        return [tf.cast(tf.cast(gradient, tf.float16), tf.float32) for gradient in gradients]

    monkeypatch.setattr(trainer.world, "average_gradients", sent)
    assert trainer.measure_views(make_batch()) == pytest.approx(expected, rel=1e-2, abs=0)


@STRESS
def test_views_come_to_agree():
    section = SECTIONS["nt_xent"]
    trainer, batch = make_trainer(section, reconstruction_weight=0.5, rate=0.05), make_batch()
    noisy = {**batch, "inputs": tf.concat([batch["inputs"][:8], 0.9 * batch["inputs"][:8]], axis=0)}
    first = trainer.train_steps(iter([noisy]), 1).values
    last = trainer.train_steps(iter([noisy] * 20), 20).values
    assert last["agreement_loss"] < 0.7 * first["agreement_loss"]
