"""The section `optimizer` of a configuration, with its learning-rate schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tfinpaint.config.base import Positive, Section, any_case, refuse_unused

ScheduleName = Literal["Step", "MultiStep", "Exponential", "Warmup", "Cosine"]
_REQUIRED: dict[ScheduleName, tuple[str, ...]] = {
    "Step": ("gamma", "step_size"),
    "MultiStep": ("gamma", "milestones"),
    "Exponential": ("gamma",),
    "Warmup": ("num_epochs", "start_factor"),
    "Cosine": (),
}
OptimizerName = Literal["SGD", "Adagrad", "Adam", "AdamW", "RMSprop", "LARS", "LAMB"]
_SGD = ("momentum", "weight_decay", "dampening", "nesterov")
_ADAM = ("beta1", "beta2", "eps", "weight_decay", "amsgrad")
_PARAMETERS: dict[OptimizerName, tuple[str, ...]] = {
    "SGD": _SGD,
    "LARS": (*_SGD, "eta"),
    "Adagrad": ("lr_decay", "weight_decay"),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "LAMB": _ADAM,
    "RMSprop": ("momentum", "alpha", "eps", "centered", "weight_decay"),
}
_OF_ALL_TYPES = (
    *("type", "learning_rate", "decay_kernels_only", "clip_norm", "layer_decay", "unfreeze_every", "ema_decay"),
    "lr_scheduler",
)


class LrScheduler(Section):
    """A learning-rate schedule; each type has keys of its own."""

    type: Annotated[ScheduleName, any_case(ScheduleName)]
    """Schedule. Step, MultiStep and Exponential multiply the learning rate by `gamma`; Warmup increases it linearly;
    Cosine decreases it from `learning_rate` to 0 along half a cosine."""
    gamma: float | None = Field(None, gt=0)
    """Step, MultiStep, Exponential: factor of each decay."""
    step_size: int | None = Field(None, ge=1)
    """Step: epochs between decays."""
    milestones: list[Positive] | None = Field(None, min_length=1)
    """MultiStep: epochs after which to decay, in increasing order."""
    num_epochs: int | None = Field(None, ge=1)
    """Warmup: epochs of linear increase to `learning_rate`."""
    start_factor: float | None = Field(None, gt=0, lt=1)
    """Warmup: factor of `learning_rate` at the start of training."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Cosine: epochs of linear increase from 0 before the decay."""
    verbose: bool = False
    """Log the learning rate after each epoch."""

    @model_validator(mode="after")
    def _check_keys(self) -> LrScheduler:
        required = _REQUIRED[self.type]
        if missing := [name for name in required if getattr(self, name) is None]:
            raise ValueError(f"{self.type} needs {', '.join(missing)}")
        refuse_unused(self, (*required, *(("warmup_epochs",) if self.type == "Cosine" else ()), "type", "verbose"))
        if self.milestones and self.milestones != sorted(set(self.milestones)):
            raise ValueError("milestones must be in increasing order")
        return self


class Optimizer(Section):
    """An optimizer with the update rule of torch.optim; each type uses some of the keys."""

    type: Annotated[OptimizerName, any_case(OptimizerName)] = "Adam"
    """Optimizer."""
    learning_rate: float = Field(0.01, gt=0)
    """Learning rate; with a schedule, its maximum."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """SGD, LARS, RMSprop: momentum."""
    dampening: float = Field(0.0, ge=0, le=1)
    """SGD, LARS: the momentum accumulates 1 - dampening times the gradient."""
    nesterov: bool = False
    """SGD, LARS: use Nesterov momentum."""
    eta: float = Field(0.001, gt=0)
    """LARS: trust coefficient."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Adam, AdamW, LAMB: decay rate of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam, AdamW, LAMB: decay rate of the second moment."""
    eps: float = Field(1e-08, gt=0)
    """Adam, AdamW, LAMB, RMSprop: added to the denominator for numerical stability."""
    amsgrad: bool = False
    """Adam, AdamW, LAMB: use the largest second moment so far (AMSGrad)."""
    alpha: float = Field(0.99, ge=0, lt=1)
    """RMSprop: decay rate of the squared gradient."""
    centered: bool = False
    """RMSprop: normalise the gradient by an estimate of its variance."""
    lr_decay: float = Field(0.0, ge=0)
    """Adagrad: learning-rate decay; the rate is divided by 1 + step * lr_decay."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay: L2 penalty added to the gradient, or, in AdamW and LAMB, decoupled."""
    decay_kernels_only: bool = False
    """Apply the weight decay to kernels only: not to biases, nor to the scales and offsets of batch norms."""
    clip_norm: float | None = Field(None, gt=0)
    """Maximum global norm of the gradients after averaging over the ranks; null: no clipping."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor of the learning rate from each group of layers of the built-in network to the one before it. The head (or
    decoder) has the learning rate itself, stage 5 of the encoder that times `layer_decay`, and so on through stages 4,
    3 and 2 to the stem."""
    unfreeze_every: int | None = Field(None, ge=1)
    """`classify`: epochs after which one more group of layers is trained (gradual unfreezing, 1801.06146): the head
    from the start, then stage 5 of the encoder, stage 4, and so on to the stem. Until then the weights of a group stay
    as they are. null: all from the start."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, such as 0.999. Evaluations, pictures, and saved
    models and encoders have the averages; training continues with the weights themselves. null: no averages."""
    lr_scheduler: LrScheduler | None = None
    """Learning-rate schedule; null: constant learning rate."""

    @model_validator(mode="after")
    def _check_keys(self) -> Optimizer:
        refuse_unused(self, (*_PARAMETERS[self.type], *_OF_ALL_TYPES))
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")
        return self


class DiscriminatorOptimizer(Optimizer):
    """The optimizer of the discriminator, with the defaults of DCGAN (Radford et al., arXiv 1511.06434)."""

    learning_rate: float = Field(0.0002, gt=0)
    """Learning rate; with a schedule, its maximum."""
    beta1: float = Field(0.5, ge=0, lt=1)
    """Adam, AdamW, LAMB: decay rate of the first moment."""

    @model_validator(mode="after")
    def _check_keys_of_model(self) -> DiscriminatorOptimizer:
        of_model = ("ema_decay", "layer_decay", "unfreeze_every")
        if any(getattr(self, name) != Optimizer.model_fields[name].default for name in of_model):
            raise ValueError(
                "ema_decay, layer_decay and unfreeze_every are for the optimizer of the model, not for the "
                "discriminator's"
            )
        return self
