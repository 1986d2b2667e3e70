"""The sections `checkpoints`, `data`, `model` and `distributed` of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from tfinpaint.config.base import PathText, Section
from tfinpaint.config.encoders import EncoderName, EncoderOutput, Stem
from tfinpaint.config.transforms import Transform
from tfinpaint.layout import CHECKPOINTS

MAX_MPIXELS = 1000.0  # upper limit of data.max_image_mpixels, millions of pixels
DEFAULT_MPIXELS = 200.0
FEW_OF_A_CLASS = 10  # images, below which a class can hardly be learnt or tested; reports warn of it


class Checkpoints(Section):
    """When checkpoints are written, how many are kept, and which one to start from."""

    save: PathText | None = Path(CHECKPOINTS)
    """Folder for checkpoints; null: none are written."""
    interval: int = Field(1, ge=1)
    """Epochs between checkpoints. The last epoch is always saved."""
    interval_steps: int | None = Field(None, ge=1)
    """Training steps between checkpoints, within an epoch too; null: no limit in steps."""
    interval_minutes: float | None = Field(10.0, gt=0)
    """Minutes between checkpoints, within an epoch too; null: no limit in time."""
    keep: int | None = Field(2, ge=1)
    """Number of newest checkpoints to keep, besides the one with the lowest loss on held-out images and the best one by
    `probe`; null: all."""
    load: PathText | None = None
    """Checkpoint to start from: a run folder (its best checkpoint: that with the highest accuracy of `probe`, else
    that with the lowest loss on held-out images, else the newest), `best_probe` or `best` in a run folder for one of
    these, a checkpoint folder, a weight file, or a Keras file (`.h5`, `.weights.h5`, `.keras`). null: random
    weights."""


class EarlyStopping(Section):
    """The end of training where the loss on validation images no longer falls."""

    patience: int = Field(10, ge=1)
    """Number of epochs without a lower loss on validation images after which training ends."""


class Probe(Section):
    """The probe of the encoder's features in pretraining, by labels that training does not use."""

    every: int = Field(5, ge=1)
    """Epochs between probes. The last epoch always has one."""
    images: int = Field(1000, ge=4)
    """Number of labelled images, about the same fraction of each class: half of them to fit the classifiers, the others
    to measure their accuracy."""
    path: PathText | None = None
    """Folder of class folders with labelled images, not those of the final test; null: `data.input_path`."""


class Data(Section):
    """Which images are read, in which batches, and how they are transformed."""

    type: Literal["images"] | None = None
    """Shorthand for `input_type` and `target_type`."""
    input_type: Literal["images"] = "images"
    """Type of the inputs."""
    target_type: Literal["images", "labels"] | None = None
    """Type of the targets. labels: the class names are folder names. null: images for `pretrain`, labels for
    `classify`."""
    input_path: PathText | None = None
    """Folder of training images, read with its subfolders, or records; null: no training."""
    target_path: PathText | None = None
    """Folder of target images, with the names of the inputs; null: the mask in `transforms` makes the targets from the
    inputs."""
    test_input_path: PathText | None = None
    """Folder of held-out images, records, or a single image file; null: no evaluation."""
    test_target_path: PathText | None = None
    """Folder of target images for `test_input_path`; null: made by the mask, or without a mask predictions only and no
    loss."""
    test_output_path: PathText | None = None
    """Folder for the predictions of held-out images (PNG and HDF5); null: none are written."""
    batch_size: int = Field(64, ge=1)
    """Training images per step over all ranks; a multiple of the number of ranks."""
    test_batch_size: int = Field(64, ge=1)
    """Held-out images per evaluation step over all ranks; a multiple of the number of ranks."""
    batch_size_per_rank: bool = False
    """`batch_size` and `test_batch_size` count the images of one rank, so batches grow with the number of ranks."""
    preload: bool = False
    """Decode all images once and keep each rank's share in memory, as uint8."""
    target_is_mask: bool = False
    """Target images are label maps: one channel of integers, not scaled, resized to the nearest pixel."""
    grayscale: bool = False
    """Shorthand for `input_grayscale` and `target_grayscale`."""
    input_grayscale: bool = False
    """Read inputs as one channel."""
    target_grayscale: bool = False
    """Read targets as one channel."""
    training_tag: str | None = Field(None, min_length=1)
    """Name of the folder that holds the class folders, anywhere below `input_path`; null: `input_path` holds the class
    folders."""
    testing_tag: str | None = Field(None, min_length=1)
    """The same for `test_input_path`."""
    views: int = Field(1, ge=1, le=2)
    """Number of times that each training image is in a batch of `pretrain`, each time transformed and erased with
    random numbers of its own. `batch_size` counts images, so 2 views take twice the time and memory."""
    mixup: float = Field(0.0, ge=0)
    """`classify`: alpha of mixup (1710.09412), such as 0.2. Each training image is mixed with another one of the batch
    of all ranks, and so are their classes; the share of the image itself is drawn from Beta(alpha, alpha). 0: no
    mixing."""
    label_fraction: float = Field(1.0, gt=0, le=1)
    """Fraction of each class's training images to use."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """`classify`: fraction of each class's training images, after `label_fraction`, that is kept out for validation.
    These are evaluated after each epoch, and the images of `test_input_path` once, at the end, with the weights of the
    epoch that had the lowest loss on validation images. 0: no validation."""
    max_bad_images: int = Field(0, ge=0)
    """Number of unusable images to tolerate, found before or during training; one more ends the run."""
    max_image_mpixels: float = Field(DEFAULT_MPIXELS, gt=0, le=MAX_MPIXELS)
    """Maximum size of an image in millions of pixels; a larger one is unusable and is not decoded."""
    jpeg_scaling: bool = True
    """Decode a JPEG image at 1/2, 1/4 or 1/8 of its size if that is still at least 1.5 times the size of the `resize`
    that begins `transforms`. That is about twice as fast; pixels differ by about 1 of 255 on average. false: decode it
    whole."""
    transforms: list[Transform] = Field(default_factory=list)
    """Transforms of inputs and targets alike, in order; a mask must be the last."""
    input_transforms: list[Transform] = Field(default_factory=list)
    """Transforms of the inputs only, after `transforms`."""
    target_transforms: list[Transform] = Field(default_factory=list)
    """Transforms of the targets only, after `transforms`."""

    @model_validator(mode="after")
    def _check_types(self) -> Data:
        if self.type is not None and self.target_type not in (None, self.type):
            raise ValueError(f"type: {self.type} sets input_type and target_type, but target_type differs; remove one")
        return self


class Model(Section):
    """The built-in network, and which layers are trained."""

    encoder: EncoderName = "resnet50"
    """Encoder. tiny: a ResNet with one block per stage and 1/16 of the filters, for tests."""
    encoder_output: EncoderOutput = "before_add"
    """Where the encoder ends: before its last addition (as in rmldnn) or after its last ReLU."""
    stem: Stem = "standard"
    """First layers. small: a 3 x 3 convolution with stride 1 and no pooling, for images below 64 pixels; a ResNet then
    divides their sides by 8 instead of 32. standard: those of the network."""
    bottleneck: Literal["channelwise"] | None = None
    """Layer between encoder and decoder. channelwise: the channel-wise fully-connected layer of Context Encoders. null:
    none."""
    decoder: Literal["plain", "batchnorm"] = "plain"
    """Decoder. plain: transposed convolutions, each with a ReLU, as in rmldnn. batchnorm: with a batch norm before each
    ReLU."""
    head: Literal["flatten", "pool"] = "flatten"
    """What the dense layer of a classifier gets: flatten: all features of the encoder, as in rmldnn; pool: their means
    over the image (global average pooling)."""
    head_init: Literal["random", "logistic_regression"] = "random"
    """What the dense layer of a classifier begins with. logistic_regression: with `head: pool`, the logistic regression
    on the features that the encoder has of the training images before its first step (LP-FT, 2202.10054)."""
    trainable: Literal["all", "head_only", "batchnorm_frozen"] | list[str] | None = None
    """Layers to train: a preset, or a list of shell patterns of layer names. null: as the network file in `layers`
    states, or all without one. Frozen layers that the network begins with run once for each image where nothing random
    comes before their outputs."""
    batchnorm_batches: int = Field(16, ge=0)
    """Training batches from which batch-norm statistics are recalibrated: of trained layers before each evaluation and
    checkpoint, of frozen layers once after a transfer. 0: use moving averages, or the transferred statistics."""
    batchnorm_visible_only: bool = False
    """`pretrain`, with a mask: batch norms of the encoder compute their statistics without the positions of which all
    pixels are erased. Training steps take longer."""


class Distributed(Section):
    """How ranks exchange gradients, and when they give up waiting for each other."""

    lr_scaling: Literal["linear", "sqrt"] | None = None
    """With `data.batch_size_per_rank`: multiply learning rates by the number of ranks (linear) or its square root
    (sqrt); null: no scaling."""
    lr_warmup_epochs: float = Field(5.0, ge=0)
    """With `lr_scaling`: epochs of linear increase to the scaled learning rate."""
    sync_batchnorm: bool = False
    """Trained batch norms use the statistics of the batch of all ranks (synchronised batch norm)."""
    gradient_groups: int | None = Field(None, ge=1)
    """Number of groups of neighbouring layers whose gradients are reduced together, each as soon as the backward pass
    has computed them; null: each tensor separately, fused up to `fusion_threshold_mb`."""
    compression: Literal["fp16"] | None = None
    """fp16: gradients are sent as float16, with dynamic loss scaling; null: they are sent as float32."""
    fusion_threshold_mb: int | None = Field(None, ge=0, le=4096)
    """Size of Horovod's tensor-fusion buffer in MiB; null: 4 if ranks share cores, otherwise 64."""
    cycle_time_ms: float | None = Field(None, gt=0, le=1000)
    """Milliseconds between Horovod's reduction cycles; null: 5 if ranks share cores, otherwise 1."""
    cache_capacity: int = Field(1024, ge=0, le=2**20)
    """Number of entries of Horovod's response cache; 0: no cache."""
    autotune: bool = False
    """Let Horovod tune fusion and cycle time instead of using `fusion_threshold_mb`, `cycle_time_ms` and
    `cache_capacity`; its log is `autotune.csv` in the run folder."""
    timeline: bool = False
    """Write Horovod's timeline to `timeline.json` in the run folder, for chrome://tracing or Perfetto."""
    heartbeat_timeout_s: float = Field(30.0, ge=1, le=86400)
    """Seconds without a heartbeat from a rank after which all others stop."""
    stall_timeout_s: int = Field(300, ge=1, le=86400)
    """Seconds to wait for a rank that makes no progress before all ranks stop."""
