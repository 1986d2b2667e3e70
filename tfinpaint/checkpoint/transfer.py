"""Copy weights into a built model by layer name: plan the transfer, report it, carry it out. Opens no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfinpaint.errors import UserError
from tfinpaint.models.layer_names import file_name
from tfinpaint.system.wording import counted

Shapes = list[tuple[int, ...]]
LayerWeights = Mapping[str, Sequence[np.ndarray]]  # layer name -> its weights, in Keras's order


@dataclass(frozen=True)
class TransferPlan:
    """The effect of a transfer on each layer that has weights.

    Attributes:
        copied: names of the layers in both models with equal weight shapes.
        missing: layers of the target that the source lacks; they keep their weights.
        unused: layers of the source that the target lacks.
        mismatched: (name, source shapes, target shapes) of layers in both with other shapes; they keep their weights.
        withheld: (name, reason) of layers that fit but must not be copied; they keep their weights.
    """

    copied: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: tuple[tuple[str, Shapes, Shapes], ...]
    withheld: tuple[tuple[str, str], ...] = ()

    @property
    def not_copied(self) -> list[str]:
        """Return the names of the layers of the target that keep their weights."""
        return [*self.missing, *(name for name, *_ in self.mismatched), *(name for name, _ in self.withheld)]

    def report(self, source_name: str, new_part: str = "", new: Sequence[str] = ()) -> list[str]:
        """Return a sentence about the transfer, or a line for each layer that is not copied and then the counts.

        Args:
            new_part: the part of the target that is expected to be new, such as "head".
            new: the names of its layers. Only if others are not copied are all named.
        """
        if not self.not_copied or (set(self.not_copied) == set(self.missing) == set(new)):
            return [self._sentence(source_name, new_part)]
        lines = [f"Skipping layer {name}: not found in {source_name}" for name in self.missing]
        lines += [
            f"Skipping layer {name}: {source_name} has weights {source}, the model {target}"
            for name, source, target in self.mismatched
        ]
        lines += [f"Skipping layer {name}: {reason}" for name, reason in self.withheld]
        lines.append(
            f"Transferred {counted(len(self.copied), 'layer')} by name; "
            f"skipped {len(self.missing) + len(self.withheld)}, mismatched {len(self.mismatched)}, "
            f"unused {len(self.unused)}"
        )
        return lines

    def _sentence(self, source_name: str, new_part: str) -> str:
        """Return what a transfer has done in which all went as expected."""
        sentence = f"Transferred {counted(len(self.copied), 'layer')} by name"
        if not self.missing:
            sentence += ", all of the model"
        else:
            named = self.missing[0] if len(self.missing) == 1 else counted(len(self.missing), "layer")
            sentence += f"; the {new_part} ({named}) is new"
        if self.unused:
            are = "is" if len(self.unused) == 1 else "are"
            sentence += f"; {counted(len(self.unused), 'further layer')} of {source_name} {are} not needed"
        return sentence


def layer_weights(model: keras.Model) -> LayerWeights:
    """Return the weights of each layer of a built model that has any, by the layer names of its network file."""
    return {file_name(layer.name): layer.get_weights() for layer in model.layers if layer.weights}


def plan_transfer(source: LayerWeights, target: keras.Model, withheld: Mapping[str, str] | None = None) -> TransferPlan:
    """Compare the layers of a source and of a built model by name and weight shapes.

    Args:
        withheld: name -> reason, for layers that must not be copied even if they fit.

    Raises:
        UserError: No layer would be copied.
    """
    have = {name: [weight.shape for weight in weights] for name, weights in source.items()}
    want = {file_name(layer.name): [tuple(w.shape) for w in layer.weights] for layer in target.layers if layer.weights}
    common = [name for name in want if name in have]
    fitting, withheld = [name for name in common if have[name] == want[name]], withheld or {}
    plan = TransferPlan(
        copied=tuple(name for name in fitting if name not in withheld),
        missing=tuple(name for name in want if name not in have),
        unused=tuple(name for name in have if name not in want),
        mismatched=tuple((name, have[name], want[name]) for name in common if have[name] != want[name]),
        withheld=tuple((name, withheld[name]) for name in fitting if name in withheld),
    )
    if not plan.copied:
        raise UserError(
            "no layer can be transferred: the source has "
            f"{_some(list(have))}, the target {_some(list(want))}; they must share layer names and shapes"
        )
    return plan


def copy_weights(plan: TransferPlan, source: LayerWeights, target: keras.Model) -> None:
    """Copy the weights of the layers in `plan.copied` from the source to the target."""
    for layer in target.layers:
        if layer.weights and file_name(layer.name) in plan.copied:
            layer.set_weights(source[file_name(layer.name)])


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:3]) or "no layers") + (", ..." if len(names) > 3 else "")
