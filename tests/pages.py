"""Pages of every kind, made from recorded metrics and pretended predictions in place of trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_config

from tfinpaint.config.loader import dump_config, load_config
from tfinpaint.layout import ENVIRONMENT, FIGURES, RESOLVED_CONFIG
from tfinpaint.report import animation
from tfinpaint.report.calibration import Calibration, draw_reliability
from tfinpaint.report.classifier_page import CONFUSED, MATRIX, RELIABILITY, SAMPLE, classifier_sections
from tfinpaint.report.comparison import write_comparison
from tfinpaint.report.confused_images import confused_examples, draw_confused
from tfinpaint.report.confusion import Confusion, draw_confusion
from tfinpaint.report.figures import draw_curve, draw_grid, draw_probe
from tfinpaint.report.pretraining_page import pretraining_sections
from tfinpaint.report.quantities import IMAGE_METRICS
from tfinpaint.report.run_page import write_run_page
from tfinpaint.report.sample_images import Predicted, draw_sample
from tfinpaint.storage.atomic import write_json
from tfinpaint.system import installation

EPOCHS, SIDE = 12, 32
COMMON = {
    "epochs": EPOCHS,
    "images_per_second": 45.25,
    "seconds": 365.0,
    "world_size": 2,
    "parameters": 23_608_202,
    "trainable_parameters": 23_555_082,
    "finished": "2026-01-31T16:05:00+01:00",
    "command": "tfinpaint classify --config configs/mine/classify.yaml --set checkpoints.load=runs/mine/pretrain",
}
SENTENCE = "Stage 5 of runs/mine: 0.710 at 10 % of the labels (600), 7.0 ± 1.3 points above the better random encoder."


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Images of coloured waves: float32 [count, SIDE, SIDE, 3], 0 to 1."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = generator.uniform(2, 9, (count, 2, 3, 1, 1))
    values = np.sin(waves[:, 0] * x + waves[:, 1] * y + generator.uniform(0, 6, (count, 3, 1, 1)))
    return np.moveaxis(0.5 + 0.5 * values, 1, -1).astype(np.float32)


def records(*names: str, phases: Sequence[str] = ("train", "validation", "test")) -> list[dict[str, Any]]:
    """Records of metrics.jsonl that improve with the epochs; loss falls, and everything else rises."""
    return [
        {
            "phase": phase,
            "epoch": epoch,
            **{name: 2 / (epoch + 2 + place) if "loss" in name else 1 - 2 / (epoch + 3 + place) for name in names},
        }
        for place, phase in enumerate(phases)
        for epoch in range(1, EPOCHS + 1)
    ]


def run_folder(folder: Path, task: str, **changes: object) -> tuple[Path, Any]:
    """Make the folder of a run with figures/ and the configuration; return the former and the configuration."""
    data = folder.parent / "images of a long name"
    config = load_config(write_config(folder.parent / f"{folder.name}.yaml", task, data, **changes), [], folder)
    (folder / FIGURES).mkdir(parents=True)
    (folder / RESOLVED_CONFIG).write_text(dump_config(config))
    write_json(folder / ENVIRONMENT, {**installation.versions(), "revision": 40 * "0" + "-dirty", "seed": 0})
    return folder / FIGURES, config


def pretraining(folder: Path) -> Path:
    """Write the page of a pretraining whose network is better than some baselines; return its path."""
    figures, config = run_folder(folder, "pretrain")
    originals = pictures(6)
    erased = originals.copy()
    erased[:, 8:24, 8:24] = 0
    names = ("original", "input", "output", "composite", "mean colour", "nearest", "biharmonic")
    draw_grid(
        dict.fromkeys(names, originals) | {"input": erased}, "held-out images, epoch 12", figures / "restorations.png"
    )
    for epoch in range(1, EPOCHS + 1):
        restored = np.where(erased[0] > 0, erased[0], originals[0] * epoch / EPOCHS)
        animation.add_frame(figures / "animation", epoch, np.concatenate([erased[0], restored, originals[0]], axis=1))
    animation.write_animation(figures / "animation", figures / "animation.gif")
    levels = {"mean colour": 0.6, "nearest": 0.75, "biharmonic": 0.9}
    history = records("loss", "hole_psnr_db", "probe_stage3", "probe_stage5", phases=("train", "test"))
    draw_curve(history, "loss", "BCE loss", figures / "loss.png")
    draw_curve(history, "hole_psnr_db", IMAGE_METRICS["hole_psnr_db"].label, figures / "hole_psnr_db.png", levels)
    draw_probe(history, {3: "probe_stage3", 5: "probe_stage5"}, {"probe_stage5": 0.4}, figures / "probe.png")
    kinds = ("network", *(name.replace(" ", "_") for name in levels))
    measured = {kind: dict.fromkeys(IMAGE_METRICS, 14.0 + place) for place, kind in enumerate(kinds)}
    summary = {
        **COMMON, "pretrain_loss": 0.2174, "test_loss": 0.2161, "loss_function": "BCE", "test_images": 179,
        "test_hole_psnr_db": 14.0, "best_baseline_hole_psnr_db": 17.0, "baseline_images": 179, "measurements": measured,
        "best_checkpoint": f"model_checkpoints/model_checkpoint_{EPOCHS}", "best_by": "lowest loss on held-out images",
        "best_epoch": EPOCHS, "best_test_loss": 0.2161, "best_probe_epoch": 9, "best_probe_accuracy": 0.71,
        "random_probe_accuracy": 0.63,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    sections = pretraining_sections(figures, summary, ("loss.png", "probe.png", "hole_psnr_db.png", "hole_ssim.png"))
    write_run_page(folder, "Pretraining by inpainting", config, summary, sections)
    return folder / "report.html"


def predictions(classes: int, images: int, accuracy: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pretended true classes, predicted classes and probabilities, [images] each."""
    generator = np.random.default_rng(classes)
    true = np.sort(generator.integers(0, classes, images))
    wrong = (true + 1 + generator.integers(0, min(classes - 1, 3), images)) % classes
    right = generator.random(images) < accuracy
    return true, np.where(right, true, wrong), generator.uniform(0.4, 1.0, images).astype(np.float32)


def class_names(number: int) -> list[str]:
    """Names of different lengths."""
    return [
        ["cat", "flower", "motorbike", "a class of a rather long name", "Ω", "fruit"][i % 6] + f" {i}"
        for i in range(number)
    ]


def classifier(
    folder: Path, *, classes: int = 8, images: int = 179, accuracy: float = 0.9, source: Path | None = None
) -> Path:
    """Write the page of a classifier that was trained from `source`, or from scratch; return its path."""
    load = str(source / "model_checkpoints" / "model_checkpoint_12") if source else None
    figures, config = run_folder(folder, "classify", checkpoints__load=load)
    names = class_names(classes)
    true, predicted, confidence = predictions(classes, images, accuracy)
    confusion = Confusion.of(names, [np.column_stack([true, predicted, np.ones_like(true)])])
    calibration = Calibration.of(confidence, true == predicted)
    chosen = np.linspace(0, images - 1, min(16, images)).astype(int).tolist()
    sample = [Predicted(i, int(true[i]), int(predicted[i]), float(confidence[i])) for i in chosen]
    draw_sample(names, sample, lambda indices: pictures(len(indices)), figures / SAMPLE)
    examples = confused_examples(confusion, np.arange(images), true, predicted, confidence)
    draw_confused(confusion, examples, lambda indices: pictures(len(indices)), figures / CONFUSED)
    draw_confusion(confusion, figures / MATRIX)
    draw_reliability(calibration, figures / RELIABILITY)
    history = records("loss", "accuracy")
    draw_curve(history, "loss", "NLL loss", figures / "loss.png")
    draw_curve(history, "accuracy", "accuracy", figures / "accuracy.png")
    summary = {
        **COMMON, "test_accuracy": confusion.accuracy, "test_loss": 0.1766, "train_loss": 0.2, "train_accuracy": 0.9531,
        "label_fraction": 0.2, "labels": 324, "from_scratch": source is None, "test_images": images,
        "test_mean_recall": 0.9, "test_mean_f1": 0.9, "test_expected_calibration_error": calibration.error,
        "loss_function": "NLL", "best_epoch": None,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    transferred = (
        "Transferred 265 layers by name, all of the model; 5 further layers of model_checkpoint_12 are not needed"
        if source
        else ""
    )
    sections = classifier_sections(figures, summary, confusion, calibration, transferred)
    write_run_page(folder, "Classifier", config, summary, sections, source)
    return folder / "report.html"


def evaluation(folder: Path, source: Path) -> Path:
    """Write the page of an evaluation on images without labels; return its path."""
    changes = {
        "data__input_path": None,
        "data__test_output_path": str(folder / "out"),
        "checkpoints__load": str(source),
    }
    figures, config = run_folder(folder, "classify", **changes)
    (folder / "out").mkdir()
    (folder / "out" / "predictions.csv").write_text("image,class,probability\ncat_0866.jpg,cat,0.714534\n")
    summary = {**COMMON, "epochs": 0, "images_per_second": None, "seconds": 0, "loss_function": "NLL"}
    write_json(folder / "summary.json", summary)
    sections = classifier_sections(figures, summary, None, None, "", config.data.test_output_path)
    write_run_page(folder, "Classifier", config, summary, sections, source)
    return folder / "report.html"


def run_page(folder: Path, name: str) -> Path:
    """Write a page of a kind of run, or one that compares runs, with the pages that it leads to; return its path."""
    mine = folder / "mine"
    match name:
        case "pretraining":
            path, write = mine / "pretrain", pretraining
        case "classifier":
            source = run_page(folder, "pretraining").parent
            path, write = mine / "pretrained", partial(classifier, source=source)
        case "few":
            path, write = mine / "from_scratch", partial(classifier, images=8, accuracy=0.6)
        case "many":
            path, write = mine / "many_classes", partial(classifier, classes=400, images=4000, accuracy=0.7)
        case "evaluation":
            source = run_page(folder, "classifier").parent
            path, write = mine / "evaluation", partial(evaluation, source=source)
        case _:
            compared = [run_page(folder, each).parent for each in ("pretraining", "classifier", "few")]
            write_comparison(compared, folder / "comparison.html")
            return folder / "comparison.html"
    return path / "report.html" if path.exists() else write(path)
