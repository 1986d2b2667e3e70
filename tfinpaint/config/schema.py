"""The schema of a configuration: `Config`, with its sections in the modules beside this one. Imports no TensorFlow.

The keys are a superset of rmldnn's. Every default stands in the schema and nowhere else.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfinpaint.config.base import PathText, Section
from tfinpaint.config.loss import Loss
from tfinpaint.config.optimizer import Optimizer
from tfinpaint.config.sections import Checkpoints, Data, Distributed, EarlyStopping, Model, Probe
from tfinpaint.config.transforms import Shape, Transform, shape_after
from tfinpaint.errors import UserError

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
MIN_SSIM_SIDE = 11  # pixels; a smaller image has no complete window of SSIM


def _tensorboard_alone() -> list[TrackerName]:
    return ["tensorboard"]


class ConfigError(UserError):
    """A configuration that cannot be used. The message names file, line and key, and says what to do."""


class Config(Section):
    """A configuration of `pretrain` or `classify`, with what follows from its keys."""

    num_epochs: int = Field(1, ge=1)
    """Epochs of the whole run, including those before a resume."""
    steps_per_epoch: int | None = Field(None, ge=1)
    """Training steps per epoch; null: as many as the data set has full batches."""
    outfile: PathText | None = None
    """Text logs: X.txt writes X_train.txt and X_test.txt; null: none are written."""
    output_format: Literal["tfinpaint", "rmldnn"] = "tfinpaint"
    """Format of predictions and text logs. rmldnn (the default of a file with an outer `neural_network`): predictions
    in output_1.h5 with channels first, and text logs without a heading, as the scripts of rmldnn's tutorials read
    them."""
    workdir: PathText | None = None
    """Run folder; null: FILE_run beside the configuration file FILE.yaml."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Random seed of weights, image order, transforms, masks and label selection."""
    deterministic: bool = False
    """Produce identical bytes in every run, resumed or not, on the same machine, software and number of ranks; slower
    on GPUs."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    """Numerical precision. mixed_bfloat16: compute in bfloat16, keep weights and gradients in float32. mixed_float16,
    for GPUs without bfloat16: compute in float16 with dynamic loss scaling. auto: mixed_bfloat16 for training where
    the hardware of all ranks computes in bfloat16 (processors with AVX512_BF16 or AMX_BF16, GPUs of compute capability
    8.0 and more), else float32; the log says which and why, and a resumed run keeps its precision. A file with an outer
    `neural_network` has float32 as its default."""
    accumulate_steps: int = Field(1, ge=1)
    """Number of parts in which each rank computes its share of a batch one after another, to need less memory;
    gradients are reduced and weights updated once per batch."""
    recompute: bool = False
    """Compute what is within the encoder's residual blocks again in the backward pass, instead of keeping it in memory.
    Results are the same; each step computes the encoder forward twice. Only for the built-in networks."""
    jit_compile: bool | Literal["auto"] = "auto"
    """Compile forward and backward pass with XLA; auto: on GPUs."""
    trackers: list[TrackerName] = Field(default_factory=_tensorboard_alone)
    """Where the metrics of each epoch are shown beside the run folder, by rank 0: tensorboard: files in the run folder;
    mlflow, wandb: MLflow, Weights & Biases (docs/tracking.md). []: nowhere."""
    figures_interval: int = Field(5, ge=1)
    """Epochs between figures. The last epoch always has figures."""
    layers: PathText | list[dict[str, Any]] | None = None
    """Network: a Keras JSON file, or a list of layers; null: the built-in network of section `model`."""
    early_stopping: EarlyStopping | None = None
    """With `data.validation_fraction`: end training before `num_epochs`; null: train all epochs."""
    probe: Probe | None = None
    """`pretrain`: judge the encoder's features every few epochs by logistic regression on labelled images, and keep the
    checkpoint that has the best ones; null: no probe. `{}` takes the defaults."""
    checkpoints: Checkpoints = Checkpoints()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    model: Model = Model()
    distributed: Distributed = Distributed()

    @property
    def input_steps(self) -> list[Transform]:
        """The transforms of an input image, in order."""
        return [*self.data.transforms, *self.data.input_transforms]

    @property
    def target_steps(self) -> list[Transform]:
        """The transforms of a target image, in order."""
        steps = [*self.data.transforms, *self.data.target_transforms]
        return [step for step in steps if not (self.data.target_is_mask and step.changes_values)]

    @property
    def input_channels(self) -> int:
        """The number of channels of the input images as they are read."""
        return 1 if self.data.input_grayscale else 3

    @property
    def target_channels(self) -> int:
        """The number of channels of the target images as they are read."""
        if self.targets_are_cut:
            return self.input_channels
        return 1 if self.data.target_is_mask or self.data.target_grayscale else 3

    @property
    def input_shape(self) -> Shape:
        """The shape of the images that the network receives."""
        return shape_after(self.input_steps, self.input_channels)

    @property
    def target_shape(self) -> Shape:
        """The shape of the images that the network's output is compared with."""
        return shape_after(self.target_steps, self.target_channels)

    @property
    def mask(self) -> Transform | None:
        """The transform that erases a region, if there is one."""
        return next((step for step in self.data.transforms if step.erases), None)

    @property
    def targets_are_cut(self) -> bool:
        """True if a mask makes the targets from the inputs, in training and in evaluation."""
        data = self.data
        own = data.target_path in (None, data.input_path) and data.test_target_path in (None, data.test_input_path)
        return self.mask is not None and own

    @property
    def unmeasured(self) -> str | None:
        """The reason why outputs cannot be compared with the original images pixel by pixel; None if they can."""
        if self._not_of_the_image is None and self.loss.normalize_patches:
            return "loss.normalize_patches changes the targets"
        return self._not_of_the_image

    @property
    def _not_of_the_image(self) -> str | None:
        """The reason why outputs, put back into the range of the images, are not the erased image; None if they are."""
        if self.mask is None:
            return "there is no mask in data.transforms"
        if not self.reconstructs:
            return "loss.reconstruction_weight is 0, so the decoder is not trained"
        if not self.targets_are_cut:
            return "data.target_path or test_target_path names other images as targets"
        if self.data.target_transforms:
            return "data.target_transforms change the targets"
        if changed := [step.kind for step in self.data.transforms if step.normalize or step.convert_color]:
            return f"{changed[0]} in data.transforms changes values before the mask; move it to data.input_transforms"
        height, width, _ = shape_after(self.data.transforms, 3)
        if height and width and min(height, width) < MIN_SSIM_SIDE:
            return f"images of {width} x {height} are smaller than {MIN_SSIM_SIDE} pixels"
        return None

    @property
    def reconstructs(self) -> bool:
        """False if views are compared and nothing is restored, so that the decoder is not trained."""
        return self.loss.reconstruction_weight > 0

    @property
    def measures_pixels(self) -> bool:
        """True if the network restores the erased image itself, so that both can be compared pixel by pixel."""
        return self.unmeasured is None

    @property
    def shows_restorations(self) -> bool:
        """True if pictures can show the erased image as the network restores it.

        Where targets are normalised by cells, the outputs are first given mean and deviation of the original cells.
        """
        return self._not_of_the_image is None

    @property
    def weighs_pixels(self) -> bool:
        """True if the pixels of an image have different weights in the loss."""
        return self.mask is not None and (self.loss.target == "masked" or self.loss.overlap > 0)

    @property
    def scales_loss(self) -> bool:
        """True if gradients are float16, in the backward pass or between ranks, and could underflow or overflow."""
        return self.precision == "mixed_float16" or self.distributed.compression == "fp16"

    @property
    def output_activation(self) -> Literal["sigmoid", "linear"]:
        """The activation of the built-in decoder's output."""
        return "linear" if self.loss.normalize_patches else "sigmoid"
