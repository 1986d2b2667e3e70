"""Fine-tuning with all that few labels need: a pooled head, rates by layer, averages, balanced classes, validation."""

import json

import pytest
from commandline import records, refuse, succeed
from conftest import write_config

from tfinpaint.checkpoint.reader import open_checkpoint, read_header

SIZE = [{"resize": [64, 64]}]
FEW_LABELS = {
    "num_epochs": 2,
    "data__transforms": SIZE,
    "data__validation_fraction": 0.25,
    "data__mixup": 0.2,
    "loss": {"function": "NLL", "weight": "balanced", "label_smoothing": 0.1},
    "model": {"encoder": "tiny", "batchnorm_batches": 2, "head": "pool", "head_init": "logistic_regression"},
    "optimizer": {
        "type": "AdamW",
        "learning_rate": 0.01,
        "weight_decay": 0.05,
        "decay_kernels_only": True,
        "layer_decay": 0.7,
        "unfreeze_every": 1,
        "ema_decay": 0.9,
    },
}


@pytest.mark.stress
def test_all_at_once_from_a_classifier_with_another_head(images, tmp_path):
    flat = write_config(tmp_path / "flat.yaml", "classify", images, encoder="tiny", num_epochs=1, data__transforms=SIZE)
    succeed("classify", "--config", flat, "--workdir", tmp_path / "flat")
    load = {"load": str(tmp_path / "flat")}
    config = write_config(tmp_path / "c.yaml", "classify", images, encoder="tiny", checkpoints=load, **FEW_LABELS)
    output = succeed("classify", "--config", config)
    # 13 and 11 images without 3 of each for validation: 18 / (2 * 10) and 18 / (2 * 8).
    assert "Class weights from 0.9 (cold) to 1.125 (warm)" in output
    assert (
        "Skipping layer dense_1: model_checkpoint_1 has weights [(512, 2), (2,)], the model [(128, 2), (2,)]" in output
    )
    assert "Transferred 32 layers by name; skipped 0, mismatched 1" in output
    assert "The head begins as logistic regression on the features of 18 training images" in output
    assert (
        "Gradual unfreezing: the head from epoch 1, stage 5 from epoch 2; not trained in 2 epochs: stage 4, stage 3, "
        "stage 2, the stem" in output
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["labels"], summary["validation_images"], summary["test_images"]) == (24, 6, 7)
    found = records(tmp_path / "run")
    assert [record["phase"] for record in found] == ["train", "validation"] * 2 + ["test"]
    best = tmp_path / "run" / "best"
    assert read_header(tmp_path / "run" / summary["best_checkpoint"]).head == "pool"
    with open_checkpoint(tmp_path / "run" / summary["best_checkpoint"]) as saved:
        assert saved.model().get_layer("avg_pool").output.shape == (None, 128)
    # The classifier is evaluated as it was trained, or refused.
    evaluation = ("--set", "data.input_path=null", "--set", f"checkpoints.load={best}")
    output = succeed("classify", "--config", config, *evaluation, "--workdir", tmp_path / "evaluated")
    assert "loss.weight: balanced is unknown" in output
    (tested,) = records(tmp_path / "evaluated")
    assert tested["accuracy"] == pytest.approx(found[-1]["accuracy"])
    error = refuse("classify", "--config", flat, *evaluation, "--workdir", tmp_path / "other")
    assert "its head is pool, model.head is flatten" in error
    assert "head was pool and is now flatten" in refuse(
        "classify", "--config", config, "--resume", "--allow-change", "model",
        "--set", "model.head=flatten", "--set", "model.head_init=random",
    )  # fmt: skip
