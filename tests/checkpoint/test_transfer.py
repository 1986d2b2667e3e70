"""Transfer by layer name: what is copied, what is reported, what is refused."""

import keras
import numpy as np
import pytest

from tfinpaint.checkpoint import transfer
from tfinpaint.errors import UserError
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import build_encoder


@pytest.fixture
def models():
    source = build_inpainter(build_encoder("tiny", "before_add", 32, 32))
    target = build_classifier(build_encoder("tiny", "before_add", 32, 32), 3)
    return source, target


def test_every_encoder_weight_arrives_and_the_head_stays(models):
    source, target = models
    head = target.get_layer("dense_1").kernel.numpy()
    plan = transfer.plan_transfer(transfer.layer_weights(source), target)
    assert len(plan.copied) == 32  # 16 convolutions and 16 batch norms
    transfer.copy_weights(plan, transfer.layer_weights(source), target)
    for name in plan.copied:
        for mine, theirs in zip(
            target.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True
        ):
            assert np.array_equal(mine, theirs)
    assert np.array_equal(target.get_layer("dense_1").kernel.numpy(), head)


def test_the_report_names_what_was_skipped_and_counts(models):
    source, target = models
    report = transfer.plan_transfer(transfer.layer_weights(source), target).report("model_checkpoint_100")
    assert report == [
        "Skipping layer dense_1: not found in model_checkpoint_100",
        "Transferred 32 layers by name; skipped 1, mismatched 0, unused 5",
    ]


def test_an_expected_transfer_is_one_sentence(models):
    source, target = models
    plan = transfer.plan_transfer(transfer.layer_weights(source), target)
    assert plan.report("model_checkpoint_100", "head", ["dense_1"]) == [
        "Transferred 32 layers by name; the head (dense_1) is new; 5 further layers of model_checkpoint_100 are not needed"
    ]
    assert len(plan.report("model_checkpoint_100", "head", ["dense_1", "dense_2"])) == 2
    whole = transfer.plan_transfer(transfer.layer_weights(target), target)
    assert whole.report("model_checkpoint_100") == ["Transferred 33 layers by name, all of the model"]


def test_a_layer_of_another_shape_is_reported_and_left_alone(models):
    _, target = models
    source = build_classifier(build_encoder("tiny", "before_add", 64, 64), 3)  # 4 times the features
    before = target.get_layer("dense_1").kernel.numpy()
    plan = transfer.plan_transfer(transfer.layer_weights(source), target)
    assert plan.mismatched == (("dense_1", [(512, 3), (3,)], [(128, 3), (3,)]),)
    assert plan.report("x")[0] == "Skipping layer dense_1: x has weights [(512, 3), (3,)], the model [(128, 3), (3,)]"
    transfer.copy_weights(plan, transfer.layer_weights(source), target)
    assert np.array_equal(target.get_layer("dense_1").kernel.numpy(), before)


def test_nothing_to_copy_is_an_error_that_names_both_sides(models):
    other = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="other")])
    with pytest.raises(UserError, match=r"no layer can be transferred: the source has other, the target conv1_conv"):
        transfer.plan_transfer(transfer.layer_weights(other), models[1])
