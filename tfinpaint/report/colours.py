"""The colours of figures: each stands for the same thing in all of them, and differs from all others."""

from __future__ import annotations

TRAIN, VALIDATION, TEST = "C0", "C4", "C1"
PHASES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
PRETRAINED, NOT_PRETRAINED = "C2", "C3"  # encoders; those without pretraining begin from random weights
BASELINES = {"mean colour": "C5", "nearest": "#0f8f9f", "biharmonic": "#c0479a"}  # of inpainting
IMAGES_THEMSELVES = "C7"  # raw pixels and HOG, which stand beside encoders
STAGES = {2: "#7fb9dc", 3: "#4292c6", 4: "#2171b5", 5: "#08519c"}  # of an encoder, the deeper the darker
ALL_STAGES = "C8"


def of_start(from_scratch: bool | None) -> str:
    """Return the colour of a classifier that began from random weights or from a pretrained encoder; None: unknown."""
    return TEST if from_scratch is None else NOT_PRETRAINED if from_scratch else PRETRAINED
