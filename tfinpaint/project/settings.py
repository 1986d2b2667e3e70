"""Choose settings that suit a user's images and machine: size, encoder, batches, steps, and how long all of it takes.

What was measured is the recipe of two erased views at 32 pixels with a ResNet18, in 1,000 steps of 64 images
(docs/recipes.md). Larger images and the settings for GPUs follow from it and are not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tfinpaint.config.encoders import EncoderName
from tfinpaint.project.survey import Survey
from tfinpaint.sweeping.plan import SCRATCH_STEPS
from tfinpaint.system.hardware import Machine

Target = Literal["laptop", "gpu"]

MANY_CORES = 8  # from here on, 64 pixels take as long as 32 on two cores
PASSES = 10, 200  # of pretraining over the images: the fewest and the most
FINE_TUNING_PASSES = 10, 100
PROBED_IMAGES = 1000  # with fewer to train on, a probe cannot tell epochs apart
EPOCHS = 10, 100  # the fewest and the most; a checkpoint and an evaluation follow each of them
EPOCH_STEPS = 100  # that are wanted
PRELOADED = 0.1  # of the memory, for decoded images

# Images per second of a training step on one core at 32 pixels, each view counted, with the decoder and without
# (AMD EPYC with AVX2, float32, ResNet18); and how much of a further core's speed is gained.
_CORE_SPEED, _CORE_SPEED_OF_CLASSIFIER = 110.0, 150.0
_CORE_GAIN = 0.85
# A guess for a GPU of recent years: ResNet50 at 128 pixels.
_GPU_SPEED = 800.0
_FORWARD = 1 / 3  # of the time of a training step
# Seconds of a run before its first step (imports, checks, compilation) and after its last: 35 of processor time on that
# machine, in part on one core alone.
_START = 45.0
# Bytes of a checkpoint of pretraining and of a classifier: 4 for each weight, each moment of AdamW, each average of the
# classifier's weights, and each weight of the encoder once more, which has a file of its own.
_CHECKPOINT_BYTES = {"resnet18": (279e6, 224e6), "resnet50": (666e6, 472e6)}
_KEPT = 3  # checkpoints of each training: the two newest ones, and the best
_RECALIBRATED = 16  # batches, at the end of each epoch


@dataclass(frozen=True)
class Settings:
    """The settings of a project.

    Attributes:
        side: of the images that the network receives, in pixels.
        cell: side of the squares that are erased.
        batch: images of a step of pretraining.
        epochs, steps: of pretraining; steps are those of an epoch.
        class_batch, class_epochs, class_steps: the same for the classifier.
        learning_rate: of pretraining.
        preload: whether decoded images are kept in memory.
        probe: whether labelled training images judge the features in pretraining.
    """

    target: Target
    encoder: EncoderName
    side: int
    cell: int
    batch: int
    epochs: int
    steps: int
    class_batch: int
    class_epochs: int
    class_steps: int
    learning_rate: float
    preload: bool
    probe: bool


@dataclass(frozen=True)
class _Size:
    """What depends on the kind of machine alone."""

    encoder: EncoderName
    sides: tuple[int, ...]  # that may be chosen, smallest first
    batch: int
    steps: int  # of pretraining, as far as PASSES allows
    class_batch: int
    class_steps: int


def choose_settings(survey: Survey, machine: Machine, target: Target) -> Settings:
    """Choose the settings for some images.

    Args:
        machine: this one, whose cores, memory and GPUs count as far as it is of the kind that is asked for.
        target: the kind of machine that will train.
    """
    size = _size_for(machine, target)
    images = survey.training_images
    side = max([size.sides[0], *(side for side in size.sides if side <= survey.sides[1] * 1.5)])
    batch, class_batch = min(size.batch, _power_of_two(images)), min(size.class_batch, _power_of_two(images // 4))
    epochs, steps = _divide(_steps(size.steps, PASSES, images, batch))
    class_epochs, class_steps = _divide(_steps(size.class_steps, FINE_TUNING_PASSES, images, class_batch))
    return Settings(
        target, size.encoder, side, side // 4, batch, epochs, steps, class_batch, class_epochs, class_steps,
        learning_rate=5e-4 * math.sqrt(max(1, batch / 64)),
        preload=survey.images * side**2 * 3 < PRELOADED * machine.usable_memory,
        probe=bool(survey.classes) and images >= PROBED_IMAGES,
    )  # fmt: skip


def _size_for(machine: Machine, target: Target) -> _Size:
    if target == "laptop":
        sides = (32, 64) if machine.usable_cores >= MANY_CORES else (32,)
        return _Size("resnet18", sides, batch=64, steps=1000, class_batch=64, class_steps=500)
    memory = min((gpu.memory for gpu in machine.gpus), default=16 * 1024)  # MiB
    batch = 64 if memory < 12 * 1024 else 128 if memory < 24 * 1024 else 256
    return _Size("resnet50", (32, 64, 128), batch=batch, steps=20_000, class_batch=128, class_steps=2000)


def _power_of_two(most: int) -> int:
    return 2 ** int(math.log2(max(4, most)))


def _steps(steps: int, passes: tuple[int, int], images: int, batch: int) -> int:
    """Return a number of steps as near to that asked for as the fewest and the most passes over the images allow."""
    fewest, most = (math.ceil(number * images / batch) for number in passes)
    return min(max(steps, fewest), most)


def _divide(steps: int) -> tuple[int, int]:
    """Return (epochs, steps of each) of so many steps."""
    epochs = min(max(round(steps / EPOCH_STEPS), EPOCHS[0]), EPOCHS[1])
    return epochs, math.ceil(steps / epochs)


def estimate_times(settings: Settings, survey: Survey, machine: Machine) -> dict[str, float]:
    """Return name of a stage -> about how many seconds it takes; `time_basis` says what that rests on."""

    def seconds(steps: int, epochs: int, pictures: int, core: float) -> float:
        forward = epochs * (survey.test_images + _RECALIBRATED * pictures) * _FORWARD
        return _START + (steps * epochs * pictures + forward) / _speed(settings, machine, core)

    found = {"pretraining": seconds(settings.steps, settings.epochs, 2 * settings.batch, _CORE_SPEED)}
    if survey.classes:
        steps, epochs, batch = settings.class_steps, settings.class_epochs, settings.class_batch
        found["classifier"] = seconds(steps, epochs, batch, _CORE_SPEED_OF_CLASSIFIER)
        found["from scratch"] = seconds(steps, SCRATCH_STEPS * epochs, batch, _CORE_SPEED_OF_CLASSIFIER)
    return found


def estimate_disk(settings: Settings, survey: Survey) -> float:
    """Return how many bytes the checkpoints of all trainings will take at most, with `checkpoints.keep` as it is."""
    pretraining, classifier = _CHECKPOINT_BYTES[settings.encoder]
    kept = _KEPT + settings.probe  # the best by the probe too
    return kept * pretraining + 2 * _KEPT * classifier * bool(survey.classes)


def _speed(settings: Settings, machine: Machine, core: float) -> float:
    """Return the images per second of training steps, each view counted.

    Args:
        core: those of one core at 32 pixels.
    """
    if settings.target == "gpu":
        return _GPU_SPEED * (128 / settings.side) ** 2
    return core * machine.usable_cores**_CORE_GAIN * (32 / settings.side) ** 2


def time_basis(settings: Settings) -> str:
    """Return what the estimate of the time rests on."""
    start = f"{_START:.0f} s to start and end each training"
    if settings.target == "gpu":
        return f"a guess of {_GPU_SPEED:.0f} images/s at 128 pixels, and {start}; nothing was measured on GPUs"
    return (
        f"from {_CORE_SPEED:.0f} images/s at 32 pixels on one core of an AMD EPYC, and {start}; other processors take "
        "half to twice as long"
    )


def rough(seconds: float) -> str:
    """Return an estimated duration such as "12 min" or "3.5 h"."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
