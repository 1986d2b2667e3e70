"""The settings that are chosen for numbers of images and machines, and how long they take."""

from dataclasses import replace
from pathlib import Path

import pytest

from tfinpaint.project.settings import choose_settings, estimate_disk, estimate_times, rough, time_basis
from tfinpaint.project.survey import Survey
from tfinpaint.system.hardware import Gpu, Machine

LAPTOP = Machine("", "", (), 2, 2, None, 8 * 2**30, None, 0, ())
GPU = replace(LAPTOP, allowed_cores=16, gpus=(Gpu("A", 40_000, 8.0),))


def survey(images: int, side: int = 300, *, classes: int = 4) -> Survey:
    """A survey of so many training images, and a third as many test images."""
    found = {f"{number}": (images // classes, images // classes // 3) for number in range(classes)}
    return Survey(Path("x"), found if classes else {}, images, 0.3, (), "", (side, side, side), False, ())


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "steps", "class_batch", "class_total"),
    [
        (20, 16, 10, 25, 4, 500),  # 200 passes; 100 passes of the classifier
        (140, 64, 10, 44, 32, 440),
        (1000, 64, 10, 100, 64, 500),  # 1,000 steps
        (6200, 64, 10, 100, 64, 970),
        (50_000, 64, 78, 101, 64, 7813),  # 10 passes at least, in epochs of about 100 steps
    ],
)
def test_a_laptop_takes_a_thousand_steps_within_limits_of_passes(
    images, batch, epochs, steps, class_batch, class_total
):
    found = choose_settings(survey(images), LAPTOP, "laptop")
    assert (found.target, found.encoder, found.side, found.cell) == ("laptop", "resnet18", 32, 8)
    assert (found.batch, found.epochs, found.steps, found.learning_rate) == (batch, epochs, steps, 5e-4)
    assert found.class_batch == class_batch
    assert class_total <= found.class_epochs * found.class_steps < class_total + found.class_epochs
    assert found.probe == (images >= 1000)
    assert found.preload


def test_many_cores_take_larger_images_unless_the_photos_are_small():
    cores = replace(LAPTOP, allowed_cores=8)
    assert [choose_settings(survey(500, side), cores, "laptop").side for side in (300, 43, 42, 8)] == [64, 64, 32, 32]


@pytest.mark.parametrize(("memory", "batch", "rate"), [(8_000, 64, 5e-4), (16_000, 128, 7.07e-4), (40_000, 256, 1e-3)])
def test_a_gpu_takes_a_deeper_encoder_larger_images_and_batches_that_fit(memory, batch, rate):
    found = choose_settings(survey(6200), replace(GPU, gpus=(Gpu("A", memory, 8.0),)), "gpu")
    assert (found.target, found.encoder, found.side, found.batch) == ("gpu", "resnet50", 128, batch)
    assert found.learning_rate == pytest.approx(rate, rel=1e-3)
    assert choose_settings(survey(6200), GPU, "laptop").encoder == "resnet18"
    assert choose_settings(survey(6200), LAPTOP, "gpu").batch == 128


def test_decoded_images_stay_in_memory_only_where_they_leave_most_of_it():
    assert not choose_settings(survey(300_000), LAPTOP, "laptop").preload


def test_without_classes_nothing_is_classified_and_no_probe_runs():
    found = choose_settings(survey(5000, classes=0), LAPTOP, "laptop")
    assert not found.probe
    assert list(estimate_times(found, survey(5000, classes=0), LAPTOP)) == ["pretraining"]


def test_the_time_is_that_of_the_steps_at_the_measured_speed():
    few = survey(140)
    found = choose_settings(few, LAPTOP, "laptop")
    times = estimate_times(found, few, LAPTOP)
    # 440 steps of 128 views, and per epoch 44 test images and 16 batches forward, a third of the work each
    speed = 110 * 2**0.85
    assert times["pretraining"] == pytest.approx(45 + (440 * 128 + 10 * (44 + 16 * 128) / 3) / speed)
    assert times["from scratch"] - 45 == pytest.approx(3 * (times["classifier"] - 45))
    assert "from 110 images/s at 32 pixels" in time_basis(found)
    assert "and 45 s to start and end each training" in time_basis(found)
    assert "a guess" in time_basis(choose_settings(few, GPU, "gpu"))


def test_estimates_are_rounded_as_they_deserve():
    assert [rough(seconds) for seconds in (5, 380, 5000, 5400, 36_000)] == [
        "1 min",
        "6 min",
        "83 min",
        "1.5 h",
        "10.0 h",
    ]


@pytest.mark.parametrize(("target", "machine"), [("laptop", LAPTOP), ("gpu", GPU)])
def test_the_disk_is_that_of_the_checkpoints_that_are_kept(target, machine):
    from tfinpaint.models.agreement import build_projector
    from tfinpaint.models.decoder import build_inpainter
    from tfinpaint.models.encoder import build_encoder

    found = choose_settings(survey(140), machine, target)
    encoder = build_encoder(found.encoder, "after_relu", 64, 64)
    trained = (
        build_inpainter(encoder).count_params() + build_projector(encoder.output.shape[-1], [2048, 128]).count_params()
    )
    pretraining = 4 * (encoder.count_params() + 3 * trained)  # weights and two moments
    classifier = 4 * (encoder.count_params() + 4 * encoder.count_params())  # an average of the weights too
    assert estimate_disk(found, survey(140)) == pytest.approx(3 * pretraining + 6 * classifier, rel=0.01)
    assert estimate_disk(found, survey(140, classes=0)) == pytest.approx(3 * pretraining, rel=0.01)
    probed = choose_settings(survey(1000), machine, target)
    assert estimate_disk(probed, survey(1000)) == pytest.approx(4 * pretraining + 6 * classifier, rel=0.01)
