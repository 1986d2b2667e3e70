"""The functions of the Python interface, which the package itself offers: `tfinpaint.pretrain(...)` and the others."""

from tfinpaint.interface.prediction import predict
from tfinpaint.interface.probing import probe
from tfinpaint.interface.training import classify, pretrain

__all__ = ["classify", "predict", "pretrain", "probe"]
