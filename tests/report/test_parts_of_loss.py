"""Losses of training and test in reports: the same quantity under one name, also of runs of older versions."""

import json

from tfinpaint.report.comparison import write_comparison
from tfinpaint.report.parts_of_loss import like_for_like, reconstruction_figures
from tfinpaint.report.pretraining_page import pretraining_sections
from tfinpaint.report.quantities import summary_table

RECORDS = [
    {"phase": phase, "epoch": epoch, "loss": loss, "reconstruction_loss": part, **more}
    for phase, epoch, loss, part, more in (
        ("train", 1, 4.8, 0.96, {"agreement_loss": 4.4}),
        ("test", 1, 0.42, 0.84, {}),
        ("train", 2, 4.1, 0.92, {"agreement_loss": 3.6}),
        ("test", 2, 0.43, 0.86, {}),
    )
]
OLD = {
    "pretrain_loss": 4.1, "test_loss": 0.43, "best_test_loss": 0.42, "best_epoch": 1, "test_images": 60,
    "loss_function": "MSE", "epochs": 2,
}  # fmt: skip
NEW = {"train_reconstruction_loss": 0.92, "test_reconstruction_loss": 0.86, "best_test_reconstruction_loss": 0.84}


def test_the_losses_of_the_reconstruction_come_from_the_records():
    assert reconstruction_figures(RECORDS, 1) == NEW
    assert reconstruction_figures(RECORDS[:1]) == {"train_reconstruction_loss": 0.96}
    without = [{name: value for name, value in record.items() if name != "agreement_loss"} for record in RECORDS]
    assert reconstruction_figures(without, 1) == {}


def test_a_total_loss_has_its_own_name():
    rows = dict(summary_table(OLD | NEW)[1:])
    assert rows["total training loss ↓"] == 4.1
    assert rows["training reconstruction loss ↓"] == 0.92
    assert rows["test reconstruction loss ↓"] == 0.86
    assert rows["reconstruction loss in the best epoch ↓"] == 0.84
    assert not {"training loss ↓", "test loss ↓", "test loss in the best epoch ↓"} & rows.keys()
    assert like_for_like(OLD) == OLD


def test_the_result_compares_the_reconstruction(tmp_path):
    result = pretraining_sections(tmp_path, OLD | NEW | {"normalize_patches": 8}, ())[0].sentences
    assert result[:2] == [
        "The reconstruction loss (MSE) on 60 test images is 0.86, and 0.92 on the training images; lower is better. A "
        "network that has learnt nothing, and fills each cell with its mean brightness, reaches about 1.",
        "The total training loss, 4.1, also contains the agreement of two views of each image, which is not computed on "
        "test images.",
    ]


def test_runs_of_older_versions_are_compared_alike(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text(json.dumps(OLD))
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    head, row = write_comparison([run], tmp_path / "comparison.html").tables["Inpainting"]
    shown = dict(zip(head, row, strict=True))
    assert (shown["training reconstruction loss"], shown["test reconstruction loss"]) == (0.92, 0.86)
    assert "test loss" not in shown
