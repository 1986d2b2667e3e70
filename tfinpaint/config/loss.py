"""The section `loss` of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfinpaint.config.base import PathText, Section, any_case
from tfinpaint.config.optimizer import DiscriminatorOptimizer

LossName = Literal["BCE", "MSE", "L1", "NLL", "Dice", "Jaccard", "Focal"]
PIXEL_LOSSES = ("BCE", "MSE", "L1")  # those that can score single pixels, as `target: masked` and `overlap` need
ActivationName = Literal["linear", "relu", "tanh", "sigmoid", "hard_sigmoid", "softmax", "log_softmax"]


AgreementName = Literal["nt_xent", "vicreg", "barlow_twins"]
MAX_WIDTH = 2**16  # of a layer of a projector
_COEFFICIENTS: dict[str, tuple[float, ...]] = {"nt_xent": (), "vicreg": (25.0, 25.0, 1.0), "barlow_twins": (0.005,)}


class Adversarial(Section):
    """The joint loss of Context Encoders (section 3.2): it adds the loss of a discriminator."""

    weight: float = Field(0.001, gt=0, lt=1)
    """Weight of the adversarial loss; the reconstruction loss has 1 - weight."""
    optimizer: DiscriminatorOptimizer = DiscriminatorOptimizer()
    """Optimizer of the discriminator: the keys of `optimizer`, with other defaults for the following ones."""


class Perceptual(Section):
    """The distance of restored and original image in the features of a frozen encoder (Johnson et al., 1603.08155)."""

    weight: float = Field(0.1, gt=0)
    """Weight of the mean squared distance of the features."""
    encoder: PathText
    """Weights of the encoder: a run folder (its newest checkpoint), `best` in a run folder, a checkpoint folder, or
    `encoder.weights.h5`."""
    layer: str = "conv3_block4_out"
    """Layer of the encoder whose outputs are compared."""


class Agreement(Section):
    """The agreement of two views of an image (`data.views: 2`), beside the reconstruction or alone.

    It compares outputs of a projector: dense layers behind the encoder's pooled features, with batch norm and ReLU
    between them, which are trained with the encoder and left out of every transfer.
    """

    type: Annotated[AgreementName, any_case(AgreementName)] = "nt_xent"
    """nt_xent: the views of an image attract each other and repel those of all other images of the batch (SimCLR,
    2002.05709). vicreg: views are alike, and dimensions vary and do not correlate (2105.04906). barlow_twins: each
    dimension correlates with itself alone (2103.03230). Each is computed over the batch of all ranks."""
    weight: float = Field(1.0, ge=0)
    """Weight of the agreement beside `loss.reconstruction_weight`."""
    temperature: float = Field(0.2, gt=0)
    """nt_xent: the temperature."""
    coefficients: list[Annotated[float, Field(ge=0)]] | None = None
    """vicreg: factors of invariance, variance and covariance; null: [25, 25, 1]. barlow_twins: the factor of the
    correlations between dimensions; null: [0.005]."""
    projector: list[Annotated[int, Field(ge=1, le=MAX_WIDTH)]] | None = Field(None, min_length=1)
    """Widths of the projector's layers; null: [2048, 128] for nt_xent, [2048, 2048, 2048] for the others."""

    @model_validator(mode="after")
    def _check_type(self) -> Agreement:
        if self.type != "nt_xent" and "temperature" in self.model_fields_set:
            raise ValueError(f"{self.type} has no temperature")
        wanted = len(_COEFFICIENTS[self.type])
        if self.coefficients is not None and len(self.coefficients) != wanted:
            raise ValueError(f"coefficients: {self.type} has {wanted} of them, not {len(self.coefficients)}")
        return self

    @property
    def factors(self) -> tuple[float, ...]:
        """The coefficients of the type."""
        return _COEFFICIENTS[self.type] if self.coefficients is None else tuple(self.coefficients)

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the projector's layers."""
        if self.projector is None:
            return (2048, 128) if self.type == "nt_xent" else (2048, 2048, 2048)
        return tuple(self.projector)


class Loss(Section):
    """The training loss, and which pixels it scores."""

    function: Annotated[LossName, any_case(LossName, l2="MSE")] | None = None
    """Loss function. NLL: class labels or label maps. Dice, Jaccard, Focal: label maps, or images of 0 and 1. BCE, MSE
    (also called L2), L1: images, or label maps if the network has one output channel. null: BCE for `pretrain`, NLL
    for `classify`."""
    source: Annotated[ActivationName, any_case(ActivationName)] | None = None
    """Activation of the network's output, as rmldnn files state it; it must agree with the network. null: taken from
    the network."""
    weight: Literal["balanced"] | Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2)] | None = None
    """NLL: weight of each class, in the order of the class names; balanced, for `classify`: the number of training
    images divided by that of classes and by that of images of the class. null: all 1."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """NLL: fraction of each target that is spread evenly over all classes."""
    target: Literal["patches", "image", "masked"] = "patches"
    """What the output is compared with if there is a mask. patches: the erased regions on a black canvas; all pixels
    are scored, as in rmldnn. image: the whole image. masked: the whole image; only the erased pixels are scored."""
    overlap: int = Field(0, ge=0)
    """With target image or masked: width in pixels of the border of the hole that is scored with `overlap_weight`."""
    overlap_weight: float = Field(10.0, gt=0)
    """Weight of the border pixels; pixels of the hole have 1."""
    normalize_patches: int | None = Field(None, ge=1)
    """With target image or masked, and MSE or L1: side in pixels of the cells of the target, each of them normalised to
    mean 0 and variance 1; the network's output is then linear. null: no normalisation."""
    reconstruction_weight: float = Field(1.0, ge=0)
    """With `agreement`: weight of the reconstruction, with the terms below. 0: views alone are compared, and the
    decoder is not trained; a mask is then optional."""
    agreement: Agreement | None = None
    """Agreement of two views; null: none."""
    adversarial: Adversarial | None = None
    """Joint loss with a discriminator; null: none."""
    perceptual: Perceptual | None = None
    """Loss in the features of a frozen encoder; null: none."""

    @model_validator(mode="after")
    def _check_keys(self) -> Loss:
        for name in ("weight", "label_smoothing"):
            if getattr(self, name) and self.function not in (None, "NLL"):
                raise ValueError(f"{self.function} has no {name}")
        if self.weight and not any(self.weight):
            raise ValueError("weight: at least one class must have a weight above 0")
        if self.target == "patches" and (self.overlap or self.normalize_patches):
            raise ValueError("overlap and normalize_patches need target: masked (or image)")
        if self.normalize_patches and self.function not in ("MSE", "L1"):
            raise ValueError("normalize_patches needs function: MSE or L1, because its targets are not between 0 and 1")
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Loss:
        if self.agreement is None and self.reconstruction_weight != 1:
            raise ValueError("reconstruction_weight needs agreement, beside which it counts")
        if self.agreement and not (self.reconstruction_weight or self.agreement.weight):
            raise ValueError("reconstruction_weight and agreement.weight must not both be 0")
        if not self.reconstruction_weight and (self.adversarial or self.perceptual):
            part = "adversarial" if self.adversarial else "perceptual"
            raise ValueError(f"{part} judges restored images; it needs a reconstruction_weight above 0")
        return self
