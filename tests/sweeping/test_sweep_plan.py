"""The plan of a sweep: which images are labelled, which shares cannot be used, and how many steps there are."""

import json
from pathlib import Path

import pytest
from conftest import write_config, write_images

from tfinpaint.cli.options import load_checked
from tfinpaint.data.listing.listing import fraction_indices, hold_out
from tfinpaint.errors import UserError
from tfinpaint.sweeping.configurations import test_config as make_test_config
from tfinpaint.sweeping.configurations import training_config
from tfinpaint.sweeping.plan import Asked, Plan, Setting, asked_of, make_plan, saved_values

COUNTS = {"cold": 40, "warm": 40, "cool": 20, "rare": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in four classes, one of which has three, and a file that stands for pretrained weights."""
    folder = tmp_path_factory.mktemp("plan")
    write_images(folder / "data" / "training", COUNTS, size=(32, 32))
    write_images(folder / "data" / "testing", {"cold": 3, "warm": 3, "cool": 2, "rare": 1}, size=(32, 32), seed=1)
    (folder / "encoder.weights.h5").write_bytes(b"weights")
    return folder


def plan_of(folder: Path, asked: Asked, **changes: object) -> Plan:
    changes = {"checkpoints__load": str(folder / "encoder.weights.h5"), **changes}
    config = write_config(folder / "c.yaml", "classify", folder / "data", encoder="tiny", **changes)
    return make_plan(folder / "sweep", load_checked(config, (), "classify", 1), asked)


def test_each_share_lies_in_the_next_and_the_smallest_ones_are_left_out(folder):
    plan = plan_of(folder, Asked((0.01, 0.05, 0.2, 1.0), draws=2), seed=3)
    assert plan.left_out == (
        "1 % of the labels are left out: these are 4 images, one of each class, so that none can be kept out for "
        "validation",
    )
    cells = {cell.name: cell for cell in plan.cells}
    assert list(cells) == [f"share_{share}/draw_{draw}" for share in (5, 20, 100) for draw in (0, 1)]
    # 5 %: 2 + 2 + 1 + 1 images, of which the first two classes give one each; 20 %: 8 + 8 + 4 + 1.
    first = cells["share_5/draw_0"]
    assert (first.seed, first.labelled, first.trained, first.validated) == (3, 6, 4, 2)
    assert first.unvalidated == ("cool", "rare")
    second = cells["share_20/draw_1"]
    assert (second.seed, second.labelled, second.trained, second.validated) == (4, 21, 16, 5)
    assert second.unvalidated == ("rare",)
    for seed in (3, 4):
        small, large = (set(fraction_indices(plan.train, share, seed)) for share in (0.05, 0.2))
        assert small < large


def test_with_all_labels_frozen_encoders_have_one_row(folder):
    plan = plan_of(folder, Asked((0.2, 1.0), draws=2))
    rows = [(cell.name, method) for cell, method in plan.rows()]
    assert len(rows) == 2 * 4 + 4 + 2
    assert [method for name, method in rows if name == "share_100/draw_1"] == ["fine_tuned", "from_scratch"]


def test_without_a_usable_share_nothing_is_planned(folder):
    with pytest.raises(UserError, match="no share of the labels can be used; name larger ones"):
        plan_of(folder, Asked((0.01,), draws=1))


def test_steps_do_not_depend_on_the_share_and_are_three_times_as_many_from_scratch(folder):
    plan = plan_of(folder, Asked((0.2,), draws=1), num_epochs=5)
    assert (plan.epochs, plan.steps) == (5, 100)  # the least number
    trained, _ = hold_out(plan.train, 0.2, 0)
    plan = plan_of(folder, Asked((0.2,), draws=1), num_epochs=100)
    assert (plan.epochs, plan.steps) == (100, len(trained) // 8)
    plan = plan_of(folder, Asked((0.2,), draws=1), num_epochs=5, steps_per_epoch=7)
    assert (plan.epochs, plan.steps) == (5, 7)
    assert plan.steps_of("from_scratch") == 3 * plan.steps_of("fine_tuned") == 3 * 5 * plan.steps
    plan = plan_of(folder, Asked((0.2,), draws=1, steps=13), num_epochs=5)
    assert (plan.epochs, plan.steps, plan.steps_of("fine_tuned")) == (5, 3, 15)
    assert plan_of(folder, Asked((0.2,), draws=1, steps=2), num_epochs=5).steps_of("fine_tuned") == 2


def test_trainings_do_not_name_the_test_images_and_tests_do(folder):
    plan = plan_of(
        folder, Asked((0.2,), draws=1),
        optimizer={"type": "SGD", "learning_rate": 0.1, "momentum": 0.9, "layer_decay": 0.7, "unfreeze_every": 1},
        model__head="pool", model__head_init="logistic_regression",
        data__validation_fraction=0.25, early_stopping={"patience": 4}, data__batch_size=32, accumulate_steps=2,
    )  # fmt: skip
    (cell,) = plan.cells
    fine, scratch = (
        training_config(plan, cell, method, Setting(0.5, 0.25), folder / method)
        for method in ("fine_tuned", "from_scratch")
    )
    for config in (fine, scratch):
        assert config.data.test_input_path is None
        assert (config.data.label_fraction, config.seed, config.data.validation_fraction) == (0.2, 0, 0.25)
        assert (config.data.batch_size, config.accumulate_steps) == (cell.trained, 1)  # there are no 32 images
        assert config.early_stopping.patience == 4
        assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (0.5, 0.25)
    assert (fine.optimizer.type, fine.optimizer.momentum, fine.optimizer.layer_decay) == ("SGD", 0.9, 0.7)
    assert (scratch.optimizer.type, scratch.optimizer.layer_decay) == ("AdamW", 1.0)
    assert (fine.optimizer.unfreeze_every, scratch.optimizer.unfreeze_every) == (1, None)
    assert (fine.model.head_init, scratch.model.head_init) == ("logistic_regression", "random")
    assert fine.model.head == scratch.model.head == "pool"
    assert (fine.checkpoints.load, scratch.checkpoints.load) == (plan.weights, None)
    assert scratch.steps_per_epoch == 3 * fine.steps_per_epoch
    tested = make_test_config(plan, fine, folder / "test")
    assert tested.data.input_path is None
    assert tested.data.test_input_path == plan.test.root
    assert tested.checkpoints.load == folder / "fine_tuned" / "best"


def test_the_grid_of_fine_tuning_is_around_the_configured_rate(folder):
    plan = plan_of(folder, Asked((0.2,), draws=1, scratch_rates=(1e-3,), scratch_decays=(0.0, 0.1)))
    assert [each.learning_rate for each in plan.grids["fine_tuned"]] == pytest.approx([0.003, 0.01, 0.03])
    assert plan.grids["from_scratch"] == [Setting(1e-3, 0.0), Setting(1e-3, 0.1)]
    assert plan.grids["from_scratch"][1].name == "rate_0.001_decay_0.1"


def test_no_two_trainings_have_one_folder(folder):
    asked = Asked((0.2, 0.2 + 1e-9), 1, None, (1e-3, 1e-3 + 1e-10, 0.002), (0.1 + 0.2, 0.3), (0.0, -0.0, 1e-9))
    plan = plan_of(folder, asked)
    assert [cell.name for cell in plan.cells] == ["share_20/draw_0"]
    names = {method: [setting.name for setting in grid] for method, grid in plan.grids.items()}
    assert names == {
        "fine_tuned": ["rate_0.001_decay_0", "rate_0.002_decay_0"],
        "from_scratch": ["rate_0.3_decay_0", "rate_0.3_decay_1e-09"],
    }


def test_what_a_sweep_cannot_use_is_refused(folder):
    for changes, message in [
        ({"checkpoints__load": None}, "no pretrained encoder is named: give --weights"),
        ({"data__test_input_path": None}, "a sweep needs data.input_path, the training images, and"),
        ({"model__trainable": "head_only"}, "a sweep trains all layers"),
        ({"data__max_bad_images": 1}, "set 0, and repair bad images"),
    ]:
        with pytest.raises(UserError, match=message):
            plan_of(folder, Asked((0.2,), draws=1), **changes)
    broken = write_images(folder / "broken", dict.fromkeys(COUNTS, 2), size=(32, 32))
    (broken / "cold" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(UserError, match=r"000.png: .* \(1 of 8 images"):
        plan_of(folder, Asked((0.2,), draws=1), data__input_path=str(broken))


def test_the_weights_of_a_network_file_are_those_of_the_whole_model(folder):
    checkpoint = folder / "model_checkpoint_3"  # of a network file: it has no encoder alone
    checkpoint.mkdir()
    (checkpoint / "model.weights.h5").write_bytes(b"weights")
    of_encoder = plan_of(folder, Asked((0.2,), draws=1)).digest
    assert plan_of(folder, Asked((0.2,), draws=1), checkpoints__load=str(checkpoint)).digest == of_encoder
    (checkpoint / "model.weights.h5").write_bytes(b"other weights")
    assert plan_of(folder, Asked((0.2,), draws=1), checkpoints__load=str(checkpoint)).digest != of_encoder


def test_a_saved_plan_says_what_was_asked_and_what_changes_results(folder):
    asked = Asked((0.2, 1.0), draws=2, rates=(0.1,))
    saved = json.loads(json.dumps(saved_values(plan_of(folder, asked), asked)))
    assert asked_of(saved) == asked
    assert plan_of(folder, Asked((1.0,), draws=1, rates=(0.1,)), data__preload=False).changes_since(saved) == {}
    del saved["config"]["data"]["views"]  # a key that an older version did not have
    assert plan_of(folder, asked).changes_since(saved) == {}
    assert plan_of(folder, asked, seed=1).changes_since(saved) == {"seed": (0, 1)}
    assert list(plan_of(folder, Asked((0.2,), draws=2)).changes_since(saved)) == ["settings of pretrained, fine-tuned"]
    plan = plan_of(folder, asked, early_stopping={"patience": 1}, data__validation_fraction=0.2, num_epochs=3)
    assert list(plan.changes_since(saved)) == ["early_stopping.patience", "epochs", "steps per epoch"]
    (folder / "encoder.weights.h5").write_bytes(b"other weights")
    assert list(plan_of(folder, asked).changes_since(saved)) == ["pretrained weights (SHA-256)"]
    assert "pretrained weights (SHA-256)" in plan_of(folder, asked).changes_since({})
