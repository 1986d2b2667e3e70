"""The command that evaluates a run on any folder of images."""

import errno
import json
import os

import pytest
import yaml
from commandline import refuse, succeed, summary, tfinpaint
from conftest import write_config, write_images, write_training_and_testing


def test_a_classifier_is_evaluated_on_images_that_it_never_saw(small_classifier, tmp_path):
    run, new = small_classifier / "run", small_classifier / "new"
    output = succeed("evaluate", run, "--data", new)
    succeed("predict", run, new, "--json", tmp_path / "p.json")
    rows = json.loads((tmp_path / "p.json").read_text())["images"]
    right = sum(f"/{row['class']}/" in row["image"] for row in rows)
    assert f"{right} of {len(rows)} images are classified correctly: accuracy {right / len(rows):.3f}" in output
    found = summary(run / "evaluations" / "new")
    assert found["test_accuracy"] == pytest.approx(right / len(rows))
    low, high = found["test_accuracy_interval"]
    assert low < found["test_accuracy"] < high or found["test_accuracy"] in (0, 1)
    assert [each["images"] for each in found["test_classes"]] == [3, 4]
    assert "expected calibration error" in output
    for name in ("report.html", "figures/reliability.png", "figures/confusion.png", "figures/test_classes.csv"):
        assert (run / "evaluations" / "new" / name).exists()
    assert (run / "tensorboard").exists()
    assert not (run / "evaluations" / "new" / "tensorboard").exists()  # no tracker is asked for
    assert "holds an evaluation already; add --overwrite" in refuse("evaluate", run, "--data", new)
    succeed("evaluate", run, "--data", new, "--overwrite")


def test_an_evaluation_that_a_full_disk_has_ended_is_repeated_by_the_same_command(
    small_classifier, tmp_path, monkeypatch
):
    words = ("evaluate", small_classifier / "run", "--data", small_classifier / "new", "--output", tmp_path / "out")

    def fail(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("tfinpaint.runs.summary.write_json", fail)
        assert refuse(*words).endswith(
            f"error: {tmp_path}/out/summary.json: No space left on device; free some space, then run the same command again\n"
        )
    assert (tmp_path / "out" / "config.resolved.yaml").exists()
    succeed(*words)
    assert "holds an evaluation already; add --overwrite" in refuse(*words)


def test_some_classes_may_be_missing_and_broken_images_are_left_out(small_classifier, tmp_path):
    write_images(tmp_path / "some", {"warm": 3})
    (tmp_path / "some" / "warm" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    output = succeed("evaluate", small_classifier / "run", "--data", tmp_path / "some", "--output", tmp_path / "out")
    assert "No images of 1 of 2 classes: cold." in output
    assert f"{tmp_path}/some: 3 images in 1 of 2 classes" in output
    assert f"1 image cannot be read and is left out, listed in {tmp_path}/out/bad_images.txt" in output
    assert output.count("report.html") == 1
    assert summary(tmp_path / "out")["test_images"] == 3


def test_refusals(small_classifier, tmp_path):
    run, out = small_classifier / "run", ("--output", tmp_path / "out")
    write_images(tmp_path / "other", {"warm": 1, "hot": 1})
    done = tfinpaint("evaluate", run, "--data", tmp_path / "other")
    assert "Run folder: " not in done.stdout
    assert not (run / "evaluations" / "other").exists()
    error = refuse("evaluate", run, "--data", tmp_path / "other", *out)
    assert not (tmp_path / "out").exists()
    assert "class hot is not among the training classes: cold, warm" in error
    flat = write_images(tmp_path / "flat", {"warm": 2}) / "warm"
    assert "holds no class folders" in refuse("evaluate", run, "--data", flat, *out)
    assert "no such folder" in refuse("evaluate", run, "--data", tmp_path / "missing", *out)
    error = refuse("evaluate", run, "--data", flat, "--output", flat / "out")
    assert "among the images" in error
    error = refuse("evaluate", run, "--data", small_classifier / "new", "--output", run, "--overwrite")
    assert "holds the run of a training" in error
    assert (run / "metrics.jsonl").exists()


def test_an_inpainter_is_evaluated_beside_the_baselines(tmp_path, undrawn_figures):
    data = write_training_and_testing(tmp_path)
    succeed("pretrain", "--config", write_config(tmp_path / "c.yaml", "pretrain", data, num_epochs=1))
    trained = summary(tmp_path / "run")
    output = succeed("evaluate", tmp_path / "run", "--data", data / "testing", "--output", tmp_path / "out")
    assert "The network restores the holes of 7 test images with a mean PSNR of" in output
    evaluated = summary(tmp_path / "out")
    assert evaluated["measurements"]["network"] == pytest.approx(trained["measurements"]["network"], rel=1e-5)
    assert evaluated["measurements"]["biharmonic"] == trained["measurements"]["biharmonic"]


def test_the_network_of_a_file_is_that_of_the_checkpoint(images, tmp_path, undrawn_figures):
    network = tmp_path / "network.json"
    config = write_config(tmp_path / "c.yaml", "classify", images, num_epochs=1)
    values = yaml.safe_load(config.read_text())
    network.write_text(json.dumps(values["layers"]))
    values["layers"] = str(network)
    config.write_text(yaml.safe_dump(values))
    succeed("classify", "--config", config)
    network.unlink()
    output = succeed("evaluate", tmp_path / "run", "--data", images / "testing", "--output", tmp_path / "out")
    assert summary(tmp_path / "out")["test_loss"] == pytest.approx(summary(tmp_path / "run")["test_loss"], rel=1e-5)
    assert "another network file" not in output
    (tmp_path / "broken" / "cold").mkdir(parents=True)
    (tmp_path / "broken" / "cold" / "a.png").write_bytes(b"")
    error = refuse("evaluate", tmp_path / "run", "--data", tmp_path / "broken", "--output", tmp_path / "no")
    assert "no readable image is left in class cold" in error
    assert not (tmp_path / "no").exists()
