"""The schema of a configuration: one frozen, strict, validated `Config`. Imports no TensorFlow.

The key names are a superset of the seed tool's. Every default of the project stands in this file and, for the steps of
`data.transforms`, in `config_transforms`; nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tfinpaint.config.transforms import Positive, Section, Shape, Transform, shape_after
from tfinpaint.errors import UserError
from tfinpaint.layout import CHECKPOINTS


class ConfigError(UserError):
    """A configuration that cannot be used. The message names file, line, key and remedy."""


MOST_MPIXELS = 1000.0  # that a configuration may allow an image, millions of pixels
USUAL_MPIXELS = 200.0  # that an image may have where none says otherwise
LEAST_MEASURED_SIDE = 11  # pixels; a smaller image holds no whole window of SSIM


class Checkpoints(Section):
    save: Path | None = Field(Path(CHECKPOINTS), description="folder for checkpoints; null: none are written")
    interval: int = Field(1, ge=1, description="epochs between checkpoints; the last epoch is always saved")
    interval_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints within an epoch; null: none for their number"
    )
    interval_minutes: float | None = Field(
        10.0, gt=0, description="minutes after which a checkpoint is due, within an epoch too; null: none for time"
    )
    keep: int | None = Field(
        2,
        ge=1,
        description="newest checkpoints kept on disk, besides that of the lowest loss on held-out images; null: all",
    )
    load: Path | None = Field(
        None,
        description="what to start from: a run folder (its newest checkpoint), `best` in a run folder (its checkpoint "
        "of the lowest loss on held-out images), a checkpoint folder, a weight file, or a file of Keras (`.h5`, "
        "`.weights.h5`, `.keras`)",
    )


class Data(Section):
    type: Literal["images"] | None = Field(None, description="sets input_type and target_type together")
    input_type: Literal["images"] = "images"
    target_type: Literal["images", "labels"] | None = Field(
        None, description="labels: the classes are folder names; null: images for pretrain, labels for classify"
    )
    input_path: Path | None = Field(None, description="training images, a tree of them; null: no training")
    target_path: Path | None = Field(
        None, description="their targets, images of the same names; null with a mask: cut from the inputs"
    )
    test_input_path: Path | None = Field(
        None, description="held-out images, or a single image file; null: no evaluation"
    )
    test_target_path: Path | None = Field(
        None, description="their targets; null without a mask: inference only, no loss"
    )
    test_output_path: Path | None = Field(
        None, description="folder for the predictions of the held-out images, PNG and HDF5; null: none are written"
    )
    batch_size: int = Field(64, ge=1, description="images per step over all ranks together, a multiple of their number")
    test_batch_size: int = Field(64, ge=1, description="the same for evaluation")
    batch_size_per_rank: bool = Field(
        False, description="batch_size and test_batch_size count the images of each rank: more ranks, larger batches"
    )
    preload: bool = Field(False, description="decode once and keep the images as uint8 in memory, each rank its share")
    target_is_mask: bool = Field(
        False, description="target images hold integers: one channel, not scaled, nearest-neighbour interpolation"
    )
    grayscale: bool = Field(False, description="sets input_grayscale and target_grayscale together")
    input_grayscale: bool = Field(False, description="read the inputs as one channel")
    target_grayscale: bool = Field(False, description="read the targets as one channel")
    training_tag: str | None = Field(
        None, min_length=1, description="the class is the folder below the one of this name, anywhere in input_path"
    )
    testing_tag: str | None = Field(None, min_length=1, description="the same for test_input_path")
    label_fraction: float = Field(1.0, gt=0, le=1, description="share of each class's training images to use")
    max_bad_images: int = Field(
        0, ge=0, description="unusable images to skip, found before and during training together; one more is an error"
    )
    max_image_mpixels: float = Field(
        USUAL_MPIXELS,
        gt=0,
        le=MOST_MPIXELS,
        description="millions of pixels; a larger image is unusable, and is not decoded",
    )
    transforms: list[Transform] = Field(
        default_factory=list, description="steps in order, for input and target alike; a mask last"
    )
    input_transforms: list[Transform] = Field(default_factory=list, description="steps after those, inputs alone")
    target_transforms: list[Transform] = Field(default_factory=list, description="steps after those, targets alone")

    @model_validator(mode="after")
    def _one_type(self) -> Data:
        if self.type is not None and self.target_type not in (None, self.type):
            raise ValueError(f"type: {self.type} stands for input_type and target_type; target_type says otherwise")
        return self


class LrScheduler(Section):
    type: Literal["Step", "MultiStep", "Exponential", "Warmup", "Cosine"] = Field(
        description="Cosine: half a cosine from learning_rate down to 0"
    )
    gamma: float | None = Field(None, gt=0, description="Step, MultiStep, Exponential: factor of each decay")
    step_size: int | None = Field(None, ge=1, description="Step: epochs between decays")
    milestones: list[Positive] | None = Field(None, min_length=1, description="MultiStep: epochs after which to decay")
    num_epochs: int | None = Field(None, ge=1, description="Warmup: epochs of linear rise to learning_rate")
    start_factor: float | None = Field(None, gt=0, lt=1, description="Warmup: starts at this times learning_rate")
    warmup_epochs: float = Field(0.0, ge=0, description="Cosine: epochs of linear rise from 0 before it")
    verbose: bool = Field(False, description="log the learning rate after every epoch")

    @field_validator("type", mode="before")
    @classmethod
    def _in_any_case(cls, name: Any) -> Any:
        return _spelled_as(name, ("Step", "MultiStep", "Exponential", "Warmup", "Cosine"))

    @model_validator(mode="after")
    def _what_it_uses(self) -> LrScheduler:
        required = {
            "Step": ("gamma", "step_size"),
            "MultiStep": ("gamma", "milestones"),
            "Exponential": ("gamma",),
            "Warmup": ("num_epochs", "start_factor"),
            "Cosine": (),
        }[self.type]
        if missing := [name for name in required if getattr(self, name) is None]:
            raise ValueError(f"{self.type} needs {', '.join(missing)}")
        _refuse_unused(self, (*required, *(("warmup_epochs",) if self.type == "Cosine" else ()), "type", "verbose"))
        if self.milestones and self.milestones != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        return self


_SGD = ("momentum", "weight_decay", "dampening", "nesterov")
_ADAM = ("beta1", "beta2", "eps", "weight_decay", "amsgrad")
_PARAMETERS = {
    "SGD": _SGD,
    "LARS": (*_SGD, "eta"),
    "Adagrad": ("lr_decay", "weight_decay"),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "LAMB": _ADAM,
    "RMSprop": ("momentum", "alpha", "eps", "centered", "weight_decay"),
}


class Optimizer(Section):
    type: Literal["SGD", "Adagrad", "Adam", "AdamW", "RMSprop", "LARS", "LAMB"] = "Adam"
    learning_rate: float = Field(0.01, gt=0, description="peak learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD, LARS, RMSprop")
    dampening: float = Field(0.0, ge=0, le=1, description="SGD, LARS: share of a gradient kept out of the momentum")
    nesterov: bool = Field(False, description="SGD, LARS: Nesterov's momentum")
    eta: float = Field(1e-3, gt=0, description="LARS: trust coefficient")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam, AdamW, LAMB")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam, AdamW, LAMB")
    eps: float = Field(1e-8, gt=0, description="Adam, AdamW, LAMB, RMSprop: added to the root in the denominator")
    amsgrad: bool = Field(False, description="Adam, AdamW, LAMB: the largest second moment so far")
    alpha: float = Field(0.99, ge=0, lt=1, description="RMSprop: smoothing of the squared gradient")
    centered: bool = Field(False, description="RMSprop: normalise by the variance")
    lr_decay: float = Field(0.0, ge=0, description="Adagrad: the rate is divided by 1 + step * lr_decay")
    weight_decay: float = Field(
        0.0, ge=0, description="times the weight, added to the gradient; AdamW, LAMB: decoupled from it"
    )
    clip_norm: float | None = Field(
        None, gt=0, description="gradients, averaged over the ranks, are scaled down to this global norm; null: never"
    )
    lr_scheduler: LrScheduler | None = Field(None, description="null: constant")

    @field_validator("type", mode="before")
    @classmethod
    def _in_any_case(cls, name: Any) -> Any:
        return _spelled_as(name, tuple(_PARAMETERS))

    @model_validator(mode="after")
    def _what_it_uses(self) -> Optimizer:
        _refuse_unused(self, (*_PARAMETERS[self.type], "type", "learning_rate", "clip_norm", "lr_scheduler"))
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")
        return self


def _spelled_as(name: Any, names: Sequence[str]) -> Any:
    """The name as it is spelled here: the seed tool's pages write `nll` and `NLL`, `adam` and `Adam`."""
    return next((known for known in names if isinstance(name, str) and known.lower() == name.lower()), name)


def _refuse_unused(section: Any, used: Sequence[str]) -> None:
    for name, field in type(section).model_fields.items():
        if name not in used and getattr(section, name) != field.default:
            raise ValueError(f"{section.type} has no {name}")


class DiscriminatorOptimizer(Optimizer):
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam, AdamW, LAMB")


class Adversarial(Section):
    """The joint loss of Context Encoders (section 3.2): a discriminator learns to tell holes from restorations."""

    weight: float = Field(0.001, gt=0, lt=1, description="of the adversarial loss; 1 - weight: of the reconstruction")
    optimizer: DiscriminatorOptimizer = Field(
        DiscriminatorOptimizer(),
        description="of the discriminator, with the keys of `optimizer`; default: Adam, learning_rate 2e-4, beta1 0.5",
    )


class Perceptual(Section):
    """The distance of restoration and original as a frozen encoder sees it (Johnson et al., arXiv 1603.08155)."""

    weight: float = Field(0.1, gt=0, description="of the mean squared distance of the features")
    encoder: Path = Field(
        description="run folder (its newest checkpoint), `best` in one, checkpoint folder, or encoder.weights.h5"
    )
    layer: str = Field("conv3_block4_out", description="layer of that encoder whose outputs are compared")


class Loss(Section):
    function: Literal["BCE", "MSE", "L1", "NLL", "Dice", "Jaccard", "Focal"] | None = Field(
        None,
        description="NLL: labels, or masks of classes; Dice, Jaccard, Focal: masks, or images of 0 and 1; the others "
        "(MSE is also called L2): images, or masks for a network of one channel; null: BCE for pretrain, NLL for "
        "classify",
    )
    source: Literal["linear", "relu", "tanh", "sigmoid", "hard_sigmoid", "softmax", "log_softmax"] | None = Field(
        None,
        description="activation that the network's output has gone through, as rmldnn files name it; it must be the "
        "network's; null: taken from the network",
    )
    weight: list[Annotated[float, Field(ge=0)]] | None = Field(
        None, min_length=2, description="NLL: a weight per class, in the order of their names"
    )
    target: Literal["patches", "image", "masked"] = Field(
        "patches",
        description="with a mask. patches: what was erased, on a black canvas, all of which is scored (as the seed "
        "does); image: the whole image; masked: what was erased, and nothing else is scored",
    )
    overlap: int = Field(0, ge=0, description="image, masked: pixels around the hole that are scored by overlap_weight")
    overlap_weight: float = Field(10.0, gt=0, description="weight of these pixels beside the hole's, which is 1")
    normalize_patches: int | None = Field(
        None,
        ge=1,
        description="image, masked with MSE or L1: side of the cells, pixels, each of which is brought to mean 0 and "
        "variance 1 in the target; the network's output is linear then",
    )
    adversarial: Adversarial | None = Field(None, description="joint loss with a discriminator; null: without")
    perceptual: Perceptual | None = Field(None, description="distance in a frozen encoder's features; null: without")

    @field_validator("function", mode="before")
    @classmethod
    def _in_any_case(cls, name: Any) -> Any:
        if isinstance(name, str) and name.lower() == "l2":
            return "MSE"
        return _spelled_as(name, ("BCE", "MSE", "L1", "NLL", "Dice", "Jaccard", "Focal"))

    @field_validator("source", mode="before")
    @classmethod
    def _activation_in_any_case(cls, name: Any) -> Any:
        return name.lower() if isinstance(name, str) else name

    @model_validator(mode="after")
    def _weights_are_for_nll(self) -> Loss:
        if self.weight and self.function not in (None, "NLL"):
            raise ValueError(f"{self.function} has no weight")
        if self.weight and not any(self.weight):
            raise ValueError("weight: at least one class must count")
        return self

    @model_validator(mode="after")
    def _what_the_target_allows(self) -> Loss:
        if self.target == "patches" and (self.overlap or self.normalize_patches):
            raise ValueError("overlap and normalize_patches need target: masked (or image)")
        if self.normalize_patches and self.function not in ("MSE", "L1"):
            raise ValueError("normalize_patches needs function: MSE or L1, its values are not 0 to 1")
        return self


class Model(Section):
    encoder: Literal["resnet50", "tiny"] = Field("resnet50", description="tiny: one block a stage, for tests")
    encoder_output: Literal["before_add", "after_relu"] = Field(
        "before_add", description="cut the encoder before its last add (as the seed does) or after its last ReLU"
    )
    bottleneck: Literal["channelwise"] | None = Field(
        None,
        description="between encoder and decoder. channelwise: the fully-connected layer of Context Encoders, from "
        "each feature map to itself; null: nothing",
    )
    trainable: Literal["all", "head_only", "batchnorm_frozen"] | list[str] | None = Field(
        None,
        description="a preset, or shell patterns of the layer names to train; null: as the network file of `layers` "
        "says, all without one",
    )
    batchnorm_batches: int = Field(
        16,
        ge=0,
        description="training batches from which batch-norm statistics are estimated, of trained layers before "
        "evaluating and saving, of frozen ones once after a transfer; 0: moving averages, or what was transferred",
    )


class Distributed(Section):
    lr_scaling: Literal["linear", "sqrt"] | None = Field(
        None,
        description="with data.batch_size_per_rank: learning rates times the number of ranks, or its square root; "
        "null: as they stand",
    )
    lr_warmup_epochs: float = Field(
        5.0, ge=0, description="lr_scaling: epochs of linear rise from the learning rate to the scaled one"
    )
    sync_batchnorm: bool = Field(
        False, description="batch norms that are trained normalise by the batch of all ranks instead of each its share"
    )
    gradient_groups: int | None = Field(
        None,
        ge=1,
        description="groups of neighbouring layers whose gradients are reduced together, each as soon as backward has "
        "them; null: every tensor by itself, fused as fusion_threshold_mb allows",
    )
    compression: Literal["fp16"] | None = Field(
        None, description="fp16: gradients travel as float16, with dynamic loss scaling; null: float32"
    )
    fusion_threshold_mb: int | None = Field(
        None, ge=0, le=4096, description="Horovod's tensor-fusion buffer, MiB; null: 4 where ranks share cores, else 64"
    )
    cycle_time_ms: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Horovod's wait between reduction rounds; null: 5 where ranks share cores, else 1",
    )
    cache_capacity: int = Field(1024, ge=0, le=2**20, description="entries of Horovod's response cache; 0: none")
    autotune: bool = Field(
        False,
        description="let Horovod look for the best fusion and cycle time; its log: autotune.csv in the run folder; "
        "fusion_threshold_mb, cycle_time_ms and cache_capacity are not used then",
    )
    timeline: bool = Field(
        False, description="write Horovod's timeline, timeline.json in the run folder, for chrome://tracing or Perfetto"
    )
    heartbeat_timeout_s: float = Field(
        30.0, ge=1, le=86400, description="seconds without a sign of life from a rank before all others stop"
    )
    stall_timeout_s: int = Field(
        300,
        ge=1,
        le=86400,
        description="seconds that all may wait for a rank that gives no sign of work before they stop",
    )


class Config(Section):
    num_epochs: int = Field(1, ge=1, description="epochs of the whole run, resumed parts included")
    steps_per_epoch: int | None = Field(None, ge=1, description="null: all whole batches of the data set")
    outfile: Path | None = Field(None, description="X.txt writes X_train.txt and X_test.txt")
    output_format: Literal["tfinpaint", "rmldnn"] = Field(
        "tfinpaint",
        description="rmldnn, the default of a file with an outer `neural_network`: predictions in output_1.h5, "
        "channels first, and text logs without a heading, as the scripts of rmldnn's tutorials read them",
    )
    workdir: Path | None = Field(None, description="run folder; null: FILE_run beside the configuration FILE.yaml")
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order, patches and the choice of labels")
    deterministic: bool = Field(
        False,
        description="the same bytes from run to run, resumed or not, on the same machine, software and ranks; "
        "slower on GPUs",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="mixed_bfloat16, for GPUs: compute in bfloat16, weights and gradients in float32; mixed_float16: "
        "in float16, with dynamic loss scaling, for GPUs without bfloat16",
    )
    accumulate_steps: int = Field(
        1,
        ge=1,
        description="parts in which each rank computes its share of a batch, one after another, to need less memory; "
        "one reduction and one update per batch all the same",
    )
    jit_compile: bool | Literal["auto"] = Field("auto", description="XLA for forward and backward; auto: on GPUs")
    figures_interval: int = Field(5, ge=1, description="epochs between pictures; the last epoch always has them")
    layers: Path | list[dict[str, Any]] | None = Field(
        None, description="a Keras network as a JSON file or a list of layers; null: that of the `model` section"
    )
    checkpoints: Checkpoints = Checkpoints()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    model: Model = Model()
    distributed: Distributed = Distributed()

    @property
    def input_steps(self) -> list[Transform]:
        """What happens to an input image, in order."""
        return [*self.data.transforms, *self.data.input_transforms]

    @property
    def target_steps(self) -> list[Transform]:
        """What happens to a target image, in order."""
        steps = [*self.data.transforms, *self.data.target_transforms]
        return [step for step in steps if not (self.data.target_is_mask and step.changes_values)]

    @property
    def input_channels(self) -> int:
        """Of the input images as they are read."""
        return 1 if self.data.input_grayscale else 3

    @property
    def target_channels(self) -> int:
        """Of the target images as they are read."""
        if self.targets_are_cut:
            return self.input_channels
        return 1 if self.data.target_is_mask or self.data.target_grayscale else 3

    @property
    def targets_are_cut(self) -> bool:
        """True where the targets are made of the inputs by a mask, in training and in evaluation."""
        data = self.data
        own = data.target_path in (None, data.input_path) and data.test_target_path in (None, data.test_input_path)
        return self.mask is not None and own

    @property
    def unmeasured(self) -> str | None:
        """Why outputs cannot be compared with the original images pixel by pixel; None where they can."""
        if self.mask is None:
            return "there is no mask in data.transforms"
        if not self.targets_are_cut:
            return "data.target_path or test_target_path names images of their own"
        if self.data.target_transforms:
            return "data.target_transforms change the targets"
        if self.loss.normalize_patches:
            return "loss.normalize_patches changes the targets"
        if changed := [step.kind for step in self.data.transforms if step.normalize or step.convert_color]:
            return f"{changed[0]} in data.transforms changes values before the mask; its place is input_transforms"
        height, width, _ = shape_after(self.data.transforms, 3)
        if height and width and min(height, width) < LEAST_MEASURED_SIDE:
            return f"images of {width} x {height} are smaller than {LEAST_MEASURED_SIDE} pixels"
        return None

    @property
    def measures_pixels(self) -> bool:
        """True where the network restores the erased image itself, so that both can be compared pixel by pixel."""
        return self.unmeasured is None

    @property
    def weighs_pixels(self) -> bool:
        """True where pixels count differently in the loss."""
        return self.mask is not None and (self.loss.target == "masked" or self.loss.overlap > 0)

    @property
    def scales_loss(self) -> bool:
        """True where gradients are float16, in backward or on their way: small ones vanish, large ones overflow."""
        return self.precision == "mixed_float16" or self.distributed.compression == "fp16"

    @property
    def output_activation(self) -> Literal["sigmoid", "linear"]:
        """At the end of the built-in decoder."""
        return "linear" if self.loss.normalize_patches else "sigmoid"

    @property
    def input_shape(self) -> Shape:
        """Of the images that the network sees."""
        return shape_after(self.input_steps, self.input_channels)

    @property
    def target_shape(self) -> Shape:
        """Of the images that the network's output is compared with."""
        return shape_after(self.target_steps, self.target_channels)

    @property
    def mask(self) -> Transform | None:
        """The step that erases, if there is one."""
        return next((step for step in self.data.transforms if step.erases), None)
