"""Pages of a probe and of a sweep, made from pretended results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_images
from pages import class_names, pictures, predictions, run_folder

from tfinpaint.data.listing.duplicates import Copy
from tfinpaint.data.listing.listing import Listing, list_class_folders
from tfinpaint.probing import examples
from tfinpaint.probing import page as probe_page
from tfinpaint.probing.evaluation import FeatureSet, Row, Score
from tfinpaint.probing.images import LabelledImages
from tfinpaint.probing.study import Study
from tfinpaint.probing.verdict import GRADIENTS, PIXELS, RANDOM, duplicates_verdict, verdict
from tfinpaint.sweeping import page as sweep_page
from tfinpaint.sweeping.plan import METHODS, Cell, Setting
from tfinpaint.sweeping.rows import Row as SweepRow
from tfinpaint.sweeping.rows import row_path, write_row

CLASSES, SHARES, DRAWS = 4, (0.1, 1.0), 2


def listings(folder: Path) -> tuple[Listing, Listing]:
    """Class folders of training and of test images."""
    names = class_names(CLASSES)
    parts = ((30, "training"), (12, "testing"))
    training, testing = (write_images(folder / part, dict.fromkeys(names, count), (8, 8)) for count, part in parts)
    return list_class_folders(training), list_class_folders(testing)


def probe(folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the page of a probe of the run in `source`; return its path."""
    train, test = listings(folder / "data")
    for module in (examples, probe_page):
        monkeypatch.setattr(module, "read_pictures", lambda listing, indices, _: pictures(len(indices)))
    kinds = [(str(source), stage) for stage in (2, 3, 4, 5)] + [(RANDOM, 5), (PIXELS, None), (GRADIENTS, None)]
    rows, sets = [], []
    for place, (name, stage) in enumerate(kinds):
        accuracies = [0.9 - 0.05 * place - 0.1 / (1 + 10 * share) for share in SHARES]
        scores = [
            Score(
                share, round(120 * share), (accuracy, accuracy - 0.02), (0.5, 0.52), (1.0, 0.1), (accuracy, 0.5), right
            )
            for share, accuracy in zip(SHARES, accuracies, strict=True)
            for right in [(np.arange(len(test)) < accuracy * len(test)).astype(float)]
        ]
        guessed = predictions(CLASSES, len(test), accuracies[-1])[1]
        probabilities = np.full((len(test), CLASSES), 0.1)
        probabilities[np.arange(len(test)), guessed] = 0.7
        rows.append(Row(name, stage, "", 8, tuple(scores), probabilities))
        generator = np.random.default_rng(place)
        sets.append(FeatureSet(name, stage, *(generator.normal(size=(len(each), 8)) for each in (train, test))))
    images = LabelledImages(train, test, held_out=False, copies=[Copy(0, 1, "identical"), Copy(3, 4, "mirrored")])
    sentences = [*verdict(rows, str(source)), duplicates_verdict(rows, str(source), images)]
    study = Study(images, rows, sets, sentences, {"test_images_are": "a folder of their own"})
    (folder / "probe").mkdir(parents=True)
    probe_page.write_report(
        folder / "probe", SimpleNamespace(name=str(source), run=source, pictures=None), study, "tfinpaint probe"
    )
    return folder / "probe" / "report.html"


def sweep(folder: Path, source: Path) -> Path:
    """Write the page of a sweep from the run in `source`; return its path."""
    train, test = listings(folder / "data")
    cells = tuple(
        Cell(share, draw, draw, round(120 * share), round(96 * share), round(24 * share), ())
        for share in SHARES
        for draw in range(DRAWS)
    )
    _, config = run_folder(folder / "configuration", "classify")
    out = folder / "sweep"
    for cell in cells:
        for place, method in enumerate(METHODS):
            right = np.arange(len(test)) % 10 < 9 - 2 * place + 2 * cell.share - cell.number
            predicted = np.where(right, test.labels, (test.labels + 1) % CLASSES)
            row_path(out, cell, method).parent.mkdir(parents=True, exist_ok=True)
            chosen = {"learning_rate": 0.001, "weight_decay": 0.05}
            row = SweepRow(
                cell.share, cell.number, cell.seed, cell.labelled, method, chosen, False, 0.8, float(right.mean()),
                tuple(predicted.tolist()),
            )  # fmt: skip
            write_row(row_path(out, cell, method), row)
    (out / cells[0].name / "fine_tuned" / "test").mkdir(parents=True)
    (out / cells[0].name / "fine_tuned" / "test" / "report.html").write_text("")
    grids = {"fine_tuned": [Setting(0.001, 0.0)], "from_scratch": [Setting(0.001, 0.05)]}
    plan = SimpleNamespace(
        folder=out, config=config, weights=source / "model_checkpoints" / "model_checkpoint_12", train=train, test=test,
        cells=cells, grids=grids, steps_of=lambda method: 500, facts=dict, left_out=(), labels_of_choice=0,
        rows=lambda: [(cell, method) for cell in cells for method in METHODS], copies=(Copy(0, 1, "identical"),),
    )  # fmt: skip
    sweep_page.write_findings(plan, sweep_page.find(plan))
    return out / "report.html"
