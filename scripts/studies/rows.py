"""The recipes that scripts/study compares: a base of two erased views, and what each row changes in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfinpaint.config.loader import read_values

CONFIGS = Path(__file__).parents[2] / "configs" / "natural_images_32px"
BASE, SEED = "pretrain_two_views.yaml", "pretrain.yaml"


@dataclass(frozen=True)
class Row:
    """A recipe.

    Attributes:
        group: the factor that is varied.
        what: what the row changes, for the table.
        config: file in CONFIGS that it changes.
        keys: dotted key of the configuration -> value.
        steps: name of a transform -> its settings, or those of them that change; None where it is left out.
    """

    group: str
    what: str
    config: str = BASE
    keys: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Any] = field(default_factory=dict)

    def configuration(self, data: Path, workdir: Path, epochs: int) -> dict[str, Any]:
        """Return the configuration of a run.

        Args:
            data: folder of the training images.
            epochs: of training; a warm-up takes a tenth of them.
        """
        config = read_values(CONFIGS / self.config)
        sections = config["data"]
        for unused in ("test_input_path", "test_batch_size"):
            sections.pop(unused, None)
        sections["transforms"] = [step for each in sections["transforms"] for step in self._changed(each)]
        common = {
            "workdir": str(workdir),
            "num_epochs": epochs,
            "probe": None,  # it would choose the checkpoint by some of the validation images
            "precision": "float32",  # rows are compared that different processors have measured
            "data.input_path": str(data),
            "optimizer.lr_scheduler.warmup_epochs": max(1, epochs // 10),
        }
        for key, value in {**common, **self.keys}.items():
            *parents, last = key.split(".")
            section = config
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        return config

    def _changed(self, step: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        (name, settings), *_ = step.items()
        if name not in self.steps:
            return [step]
        change = self.steps[name]
        if change is None:
            return []
        return [{name: {**settings, **change} if isinstance(change, Mapping) else change}]


NO_RECONSTRUCTION = {"loss.reconstruction_weight": 0}
NT_XENT = {"type": "nt_xent", "weight": 1.0, "temperature": 0.2, "projector": [2048, 128]}
WHOLE = {"loss": {"reconstruction_weight": 0, "agreement": NT_XENT}}
ONE_VIEW = {"data.views": 1, "loss.agreement": None, "loss.reconstruction_weight": 1}
VICREG = {"type": "vicreg", "weight": 0.04, "projector": [2048, 2048, 2048]}
BARLOW_TWINS = {"type": "barlow_twins", "weight": 0.01, "projector": [2048, 2048, 2048]}

ROWS: dict[str, Row] = {
    "both": Row("loss", "reconstruction and agreement (NT-Xent) of two erased views, the base of all rows below"),
    "agreement_whole": Row("loss", "agreement alone, nothing erased", keys=WHOLE, steps={"grid": None}),
    "agreement_erased": Row("loss", "agreement alone, views erased as in the base", keys=NO_RECONSTRUCTION),
    "inpainting": Row("loss", "reconstruction alone, one view", keys=ONE_VIEW),
    "tutorial": Row(
        "loss", "the tutorial's recipe: black patches, cross-entropy of the whole image, Adam", SEED,
        keys={"model.encoder": "resnet18", "data.batch_size": 64},
    ),
    "batch_128": Row("batch", "128 images", keys={"data.batch_size": 128}),
    "vicreg": Row("loss", "VICReg in place of NT-Xent", keys={"loss.agreement": VICREG}),
    "barlow_twins": Row("loss", "Barlow Twins in place of NT-Xent", keys={"loss.agreement": BARLOW_TWINS}),
    "weight_0.1": Row("weight of the reconstruction", "0.1", keys={"loss.reconstruction_weight": 0.1}),
    "weight_1": Row("weight of the reconstruction", "1", keys={"loss.reconstruction_weight": 1.0}),
    "share_0.25": Row("erased share", "0.25 of every image", steps={"grid": {"ratio": 0.25}}),
    "share_0.5": Row("erased share", "0.5 of every image", steps={"grid": {"ratio": 0.5}}),
    "share_0.75": Row("erased share", "0.75 of every image", steps={"grid": {"ratio": 0.75}}),
    "complementary": Row("masks", "complementary", steps={"grid": {"ratio": 0.5, "complementary": True}}),
    "cell_4": Row(
        "cell", "4 px", keys={"loss.normalize_patches": 4}, steps={"grid": {"size": 4}},
    ),
    "crop_0.08": Row("crop", "at least 0.08 of the area", steps={"random_resized_crop": {"scale": [0.08, 1.0]}}),
    "no_crop": Row("crop", "none", steps={"random_resized_crop": None}),
    "no_colour": Row("colour", "no jitter, no grey images", steps={"color_jitter": None, "random_grayscale": None}),
    "fill_black": Row("fill", "black", steps={"grid": {"fill": "black"}}),
    "fill_noise": Row("fill", "noise", steps={"grid": {"fill": "noise"}}),
    "decoder_batchnorm": Row("decoder", "with batch norms", keys={"model.decoder": "batchnorm"}),
    "batchnorm_visible": Row(
        "batch norms", "leave erased positions out", keys={"model.batchnorm_visible_only": True}
    ),
    "resolution_64": Row(
        "resolution", "64 px, cells of 16 px",
        keys={"loss.normalize_patches": 16}, steps={"resize": [64, 64], "grid": {"size": 16}},
    ),
    "resolution_64_cell_8": Row(
        "resolution", "64 px, cells of 8 px",
        keys={"loss.normalize_patches": 8}, steps={"resize": [64, 64], "grid": {"size": 8}},
    ),
}  # fmt: skip
