"""The command sweep: choice by validation images, going on, refusals; a whole sweep in processes is a stress test."""

import csv
import importlib
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pytest
import yaml
from commandline import refuse, succeed, summary, tfinpaint
from conftest import write_config, write_images

from tfinpaint.cli.options import load_checked
from tfinpaint.data.listing.listing import fraction_indices, list_class_folders, take_fraction
from tfinpaint.probing import classifiers
from tfinpaint.sweeping import frozen, plan, processes, rows

TRAINING = {"cold": 20, "warm": 20, "cool": 14, "rare": 3}
TESTING = {"cold": 5, "warm": 5, "cool": 4, "rare": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in four classes, one of which has three, a configuration, and a file in the place of pretrained weights."""
    folder = tmp_path_factory.mktemp("sweep")
    write_images(folder / "data" / "training", TRAINING, size=(32, 32))
    write_images(folder / "data" / "testing", TESTING, size=(32, 32), seed=1)
    (folder / "encoder.weights.h5").write_bytes(b"weights")
    write_config(
        folder / "c.yaml", "classify", folder / "data", encoder="tiny", num_epochs=2, steps_per_epoch=2,
        workdir=str(folder / "classify"), model__encoder_output="after_relu", model__head="pool",
    )  # fmt: skip
    return folder


def options(folder: Path, workdir: Path, *more: str, weights: str = "encoder.weights.h5") -> list[str | Path]:
    return [
        "sweep", "--config", folder / "c.yaml", "--weights", folder / weights, "--workdir", workdir, "--workers", "1",
        *more,
    ]  # fmt: skip


class Pretended:
    """Runs of classify that do nothing but write results, which the settings of each decide.

    Attributes:
        configs: those of all runs, in order.
        stop_after: number of runs after which Ctrl-C comes.
    """

    def __init__(self) -> None:
        self.configs: list[dict] = []
        self.stop_after = 10**6

    def start(self, command, slot, output):
        module, *arguments = command[2:]
        if module == "tfinpaint.sweeping.frozen":
            return SimpleNamespace(poll=lambda: importlib.import_module(module).main(arguments))
        path = arguments[arguments.index("--config") + 1]
        config = yaml.safe_load(Path(path).read_text())
        self.configs.append(config)
        if len(self.configs) > self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)
            return SimpleNamespace(poll=lambda: 0, pid=-1)
        run = Path(config["workdir"])
        run.mkdir(parents=True)
        if config["data"]["input_path"] is None:
            self.test(config, run)
        else:
            self.train(config, run, output)
        return SimpleNamespace(poll=lambda: 0)

    def train(self, config: dict, run: Path, output: BinaryIO) -> None:
        """A higher rate has a lower validation accuracy, and 1 is too much."""
        rate = config["optimizer"]["learning_rate"]
        if rate == 1:
            output.write(b"error: epoch 2: the loss on the images is not finite (inf or nan)\n")
            return
        (run / "model_checkpoints").mkdir()
        (run / "metrics.jsonl").write_text('{"seconds": 1e-9}\n')
        result = {"validation_accuracy": 0.9 - rate, "validation_loss": 1.0, "best_epoch": 1}
        (run / "summary.json").write_text(json.dumps(result))

    def test(self, config: dict, run: Path) -> None:
        """A higher rate has a higher test accuracy: all images or those of class cold are right."""
        rate = config["optimizer"]["learning_rate"]
        table = [("image", "class", "probability")]
        for name, count in TESTING.items():
            table += [(f"{name}/{i:03}.png", name if rate > 0.1 else "cold", "1") for i in range(count)]
        (run / "predictions").mkdir()
        with (run / "predictions" / "predictions.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
        (run / "summary.json").write_text("{}")


@pytest.fixture
def pretended(monkeypatch):
    """Pretended runs, and frozen rows of a few fits on features that need no encoder."""
    pretended = Pretended()
    monkeypatch.setattr(processes, "start", pretended.start)
    monkeypatch.setattr(processes, "INTERVAL", 0.0)
    monkeypatch.setattr(classifiers, "STRENGTHS", (0.01, 1.0))
    monkeypatch.setattr(frozen, "_features", colours)
    return pretended


def colours(plan: plan.Plan) -> tuple[frozen.Features, frozen.Features]:
    """Features by which the pretrained encoder tells the classes apart, and random ones do not."""
    generator = np.random.default_rng(0)
    told = tuple(np.eye(4, dtype=np.float32)[each.labels] for each in (plan.train, plan.test))
    noise = [generator.normal(size=(len(each), 4)).astype(np.float32) for each in (plan.train, plan.test)]
    return {"pretrained": told}, {"first": (noise[0], noise[1]), "second": (noise[0][::-1], noise[1])}


GRID = ("--rates", "0.05", "0.2", "--scratch-rates", "0.1", "0.3", "1", "--scratch-weight-decays", "0.01")


def test_validation_images_choose_and_all_methods_have_the_same_labels(folder, tmp_path, pretended, monkeypatch):
    taken = []
    fit = frozen._fit
    monkeypatch.setattr(
        frozen, "_fit", lambda features, chosen, *rest: taken.append(chosen) or fit(features, chosen, *rest)
    )
    shown = succeed(*options(folder, tmp_path / "out", *GRID, "--shares", "20", "50", "--seeds", "2"))
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert shown.count(found["sentences"][0]) == 1
    # The test images would choose 0.2 and 0.3: all of them are right there, and 5 of 16 here.
    chosen = {row["method"]: row["chosen"] for row in found["rows"]}
    assert (chosen["fine_tuned"]["learning_rate"], chosen["from_scratch"]["learning_rate"]) == (0.05, 0.1)
    accuracies = {(each["method"], each["share"]): each["interval"]["mean"] for each in found["accuracies"]}
    assert accuracies["fine_tuned", 0.2] == accuracies["from_scratch", 0.5] == 5 / 16
    assert accuracies["pretrained_frozen", 0.5] == 1.0
    frozen_gain = [each for each in found["differences"] if each["pair"][1] == "random_frozen"]
    assert [each["interval"]["low"] > 0 for each in frozen_gain] == [True, True]
    pays = "Pretraining pays with 20 % and 50 % of the labels: there the frozen encoder is more accurate"
    assert found["sentences"][0].startswith(pays)
    assert any("the chosen learning rate is the smallest or the largest" in line for line in found["sentences"])
    assert any("no image of class rare could be kept out" in line for line in found["sentences"])
    # No training saw a test image, each chosen one was tested once, and all have the labels of the frozen rows.
    trainings = [each for each in pretended.configs if each["data"]["input_path"]]
    tests = [each for each in pretended.configs if not each["data"]["input_path"]]
    assert (len(trainings), len(tests)) == (4 * 5, 4 * 2)
    assert all(each["data"]["test_input_path"] is None for each in trainings)
    assert len({each["checkpoints"]["load"] for each in tests}) == 8
    training = list_class_folders(folder / "data" / "training")
    of_runs = {tuple(take_fraction(training, each["data"]["label_fraction"], each["seed"]).paths) for each in trainings}
    assert of_runs == {tuple(training.select(each).paths) for each in taken}
    assert len(of_runs) == 4
    assert set(map(tuple, taken)) == {
        tuple(fraction_indices(training, share, seed)) for share in (0.2, 0.5) for seed in (0, 1)
    }
    table = list(csv.DictReader((tmp_path / "out" / "sweep.csv").open()))
    assert len(table) == 16
    assert (table[1]["method"], table[1]["test_accuracy"], table[1]["validation_accuracy"]) == (
        "fine_tuned",
        "0.3125",
        "0.85",
    )
    page = (tmp_path / "out" / "report.html").read_text()
    for part in (
        "Does pretraining pay?",
        "pretrained, fine-tuned - from scratch",
        "How it was measured",
        "data:image/png",
    ):
        assert part in page
    assert found["sentences"][0] in page
    assert found["sentences"][1] not in page  # the differences are in a table there
    assert found["sentences"][-1] in page


def test_a_sweep_goes_on_where_it_stopped_and_runs_nothing_twice(folder, tmp_path, pretended):
    command = options(folder, tmp_path / "out", *GRID, "--shares", "50", "--seeds", "1")
    pretended.stop_after = 4  # two trainings and a test of fine-tuning, one from scratch
    stopped = tfinpaint(*command)
    assert stopped.returncode == 130
    assert "The sweep has stopped; what is finished is in" in stopped.stdout
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["pretrained_frozen", "fine_tuned", "random_frozen"]
    assert "The sweep is not finished: 1 of 4 rows are missing; the same command continues." in found["sentences"]
    before = [each["workdir"] for each in pretended.configs[:4]]
    pretended.configs, pretended.stop_after = [], 10**6
    shown = succeed(*command)
    assert "3 of 4 rows are finished; 3 runs are left" in shown
    after = [each["workdir"] for each in pretended.configs]
    assert len(set(before) | set(after)) == len(before) + len(after) == 7
    assert list((tmp_path / "out").glob("share_*/*/*/*/model_checkpoints")) == []  # nothing needs them any more
    # Those of a finished row that a stop has left are deleted, but not by a dry run.
    left = tmp_path / "out" / "share_50" / "draw_0" / "fine_tuned" / "rate_0.05_decay_0" / "model_checkpoints"
    left.mkdir()
    pretended.configs = []
    succeed(*command, "--dry-run")
    assert left.exists()
    succeed(*command)
    assert pretended.configs == []
    assert not left.exists()
    # More draws and shares are added; what is there stays.
    succeed(*options(folder, tmp_path / "out", *GRID, "--shares", "20", "--seeds", "1"))
    assert {each["data"]["label_fraction"] for each in pretended.configs} == {0.2}
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert sorted({row["share"] for row in found["rows"]}) == [0.2, 0.5]


def test_another_sweep_in_the_same_folder_is_refused(folder, tmp_path, pretended):
    small = ("--shares", "50", "--seeds", "1")
    succeed(*options(folder, tmp_path / "out", *GRID, *small))
    for changed, expected in [
        (("--set", "data.batch_size=4"), "data.batch_size was 8, is 4; name another"),
        (("--steps", "2"), "steps per epoch was 2, is 1"),
        (("--rates", "0.05"), "settings of pretrained, fine-tuned was "),
    ]:
        error = refuse(*options(folder, tmp_path / "out", *GRID, *small, *changed))
        assert "holds a sweep with other settings: " in error
        assert expected in error
        assert error.count("\n") == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    assert "holds files, but no sweep; name another folder" in refuse(
        *options(folder, tmp_path / "other", *GRID, *small)
    )


@pytest.mark.stress
def test_settings_whose_values_were_not_finite_are_left_out_of_the_choice(folder, tmp_path, pretended):
    small = ("--shares", "20", "50", "--seeds", "1", "--rates", "0.05", "--scratch-weight-decays", "0.01")
    # What has failed does not keep other rows from being computed, and the report has those that are finished.
    for _ in range(2):
        error = refuse(*options(folder, tmp_path / "out", *small, "--scratch-rates", "1"))
        assert "from scratch: values were not finite in any of its trainings; try lower learning rates" in error
        found = json.loads((tmp_path / "out" / "sweep.json").read_text())
        assert [row["share"] for row in found["rows"] if row["method"] == "fine_tuned"] == [0.2, 0.5]


def test_a_dry_run_writes_nothing_and_says_what_would_run(folder, tmp_path, pretended, monkeypatch):
    pretended.train = lambda config, run, output: [
        run.joinpath("summary.json").write_text("{}"),
        run.joinpath("metrics.jsonl").write_text('{"seconds": 5.0}\n{"seconds": 0.5, "images_per_second": 64.0}\n'),
    ]  # fmt: skip
    shown = succeed(*options(folder, tmp_path / "out", *GRID, "--shares", "1", "50", "100", "--dry-run"))
    assert "43 runs are left for 20 of 20 rows" in shown  # 6 draws x (2 + 1 + 3 + 1) and the frozen encoders
    assert "A draw is one choice of the labelled images, " in shown
    assert "; a row is the result of one method in one draw" in shown
    assert "All rows are measured on the same " in shown
    assert "64 images/s" in shown
    assert (
        "Each fine-tuning has 4 steps, with 2 settings; each training from scratch 12 steps, with 3 settings" in shown
    )
    assert "1 % of the labels are left out: these are 4 images" in shown
    assert "Nothing was written" in shown
    assert not (tmp_path / "out").exists()
    (measured,) = pretended.configs
    assert measured["data"]["test_input_path"] is None


def test_what_cannot_be_swept_is_refused_in_a_line(folder, tmp_path, monkeypatch):
    for changed, expected in [
        (("--shares", "0"), "0: expected a percentage above 0, at most 100"),
        (("--seeds", "0"), "0: expected a whole number, 1 to 100"),
        (("--rates", "-1"), "--rates"),
        (("--scratch-rates", "0"), "0: expected a number above 0"),
        (("--workers", "999"), "--workers 999: this machine has "),
        (("--shares", "1"), "no share of the labels can be used; name larger ones with --shares"),
        (("--set", "data.test_input_path=null"), "a sweep needs data.input_path, the training images, and"),
        (("--workdir", folder / "data" / "training" / "out"), "among the images; name another folder with --workdir"),
        (("--weights", folder / "nothing"), "no such checkpoint"),
    ]:
        error = refuse(*options(folder, tmp_path / "out"), *changed)
        assert expected in error
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr("os._exit", lambda code: None)
    assert "tfinpaint sweep runs in one process, and a launcher has started 2" in refuse(*options(folder, tmp_path))


@pytest.mark.stress
def test_a_whole_sweep_in_processes(folder, tmp_path):
    """One setting each of fine-tuning and from scratch, with half of the labels."""
    pretrained = write_config(
        folder / "p.yaml", "pretrain", folder / "data", encoder="tiny", num_epochs=1, steps_per_epoch=1,
        model__encoder_output="after_relu",
        workdir=str(folder / "pretrain"), data__test_input_path=None,
    )  # fmt: skip
    succeed("pretrain", "--config", pretrained)
    one = ("--rates", "0.01", "--scratch-rates", "0.01", "--scratch-weight-decays", "0.01", "--shares", "50")
    shown = succeed(*options(folder, tmp_path / "out", *one, "--seeds", "1", weights="pretrain"))
    place = tmp_path / "out" / "share_50" / "draw_0"
    config = load_checked(folder / "c.yaml", (f"checkpoints.load={folder / 'pretrain'}",), "classify", 1)
    made = plan.make_plan(tmp_path / "out", config, plan.Asked((0.5,), 1, None, (0.01,), (0.01,), (0.01,)))
    found = {row.method: row for row in rows.read_rows(tmp_path / "out", made.test)}
    assert set(found) == set(plan.METHODS)
    for method, decay in (("fine_tuned", "0"), ("from_scratch", "0.01")):
        trained, tested = (summary(place / method / name) for name in (f"rate_0.01_decay_{decay}", "test"))
        assert trained["labels"] == made.cells[0].labelled == 29
        assert trained["from_scratch"] is (method == "from_scratch")
        assert "test_accuracy" not in trained
        assert found[method].accuracy == pytest.approx(tested["test_accuracy"])
        assert found[method].validation_accuracy == pytest.approx(trained["validation_accuracy"])
    for method in ("pretrained_frozen", "random_frozen"):
        assert found[method].accuracy == np.mean(np.array(found[method].predicted) == made.test.labels)
    assert f"{found['fine_tuned'].accuracy:.3f}" in shown
