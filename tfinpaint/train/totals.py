"""What an epoch has summed up: over its steps, then over the ranks.

The sums are exact: an epoch that is interrupted and resumed adds up to the same numbers, and so does any order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError

SUM_PARTS = 8  # float64 numbers for an exact sum; that of float32 numbers needs six: 277 bits, and some for their count
MOST_PENDING = 256  # steps whose tensors are kept


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training or evaluation gave, over all ranks.

    Attributes:
        values: mean over the images of the loss (weighted as the objective says) and of each metric.
        images: number of images seen.
        seconds: wall time.
        images_per_second: over all ranks, without the first step (which compiles, or waits for the first batch).
    """

    values: dict[str, float]
    images: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class PartialEpoch:
    """The steps done of an epoch, on this rank.

    Attributes:
        names: of what was summed up.
        sums: float64 [any number, names]: the exact sum over the first axis is that over the images of these steps.
        steps: how many.
        images: how many in these steps.
        seconds: that they took.
    """

    names: tuple[str, ...]
    sums: np.ndarray
    steps: int
    images: int
    seconds: float


def empty_epoch() -> PartialEpoch:
    """Return an epoch without a step."""
    return PartialEpoch((), np.zeros((SUM_PARTS, 0)), 0, 0, 0.0)


def exact_parts(values: Sequence[float]) -> list[float]:
    """Return at most SUM_PARTS numbers with the exact sum of the values; one, where that is not finite.

    `math.fsum` rounds the exact sum once. What it has rounded away is the next number.
    """
    parts: list[float] = []
    try:
        while len(parts) < SUM_PARTS and (part := math.fsum([*values, *(-part for part in parts)])):
            if not math.isfinite(part):
                return [part]
            parts.append(part)
    except (ValueError, OverflowError):  # inf - inf, or beyond the range of float64
        return [math.nan]
    return parts


def name_ranks(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


class Totals:
    """Sums over one epoch on this rank, then over all ranks.

    Args:
        shares: how much each part of the loss, by name, has in the whole.
        where: what the sums are of, for messages.
        so_far: what an earlier process has summed up.
    """

    def __init__(self, shares: Mapping[str, float], where: str, so_far: PartialEpoch | None = None) -> None:
        self._shares, self._where = shares, where
        before = so_far or empty_epoch()
        self._parts = {name: exact_parts(column) for name, column in zip(before.names, before.sums.T, strict=True)}
        self._pending: list[tuple[dict[str, Any], int]] = []  # (sums, images) of the last steps
        self._before, self._steps, self._images, self._images_of_first = before, 0, 0, 0  # of this process
        self._begin = time.perf_counter()
        self._after_first = self._begin

    @property
    def steps(self) -> int:
        return self._before.steps + self._steps

    def add(self, sums: dict[str, tf.Tensor], count: int) -> None:
        """Add a step: its sums over its images, and their number."""
        self._pending.append((sums, count))
        self._steps += 1
        self._images += count
        if self._steps == 1:
            self._after_first, self._images_of_first = time.perf_counter(), count
        if len(self._pending) > MOST_PENDING:
            self._settle()

    def _settle(self) -> None:
        """Add up all steps but the last two, whose loss may still be asked for; the device may be at the last."""
        done, self._pending = self._pending[:-2], self._pending[-2:]
        self._parts = self._added_up(sums for sums, _ in done)

    def _added_up(self, steps: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
        """The exact sums of what is settled and of these steps."""
        values = {name: list(parts) for name, parts in self._parts.items()}
        for sums in steps:
            for name, value in sums.items():
                values.setdefault(name, []).append(float(value))
        return {name: exact_parts(each) for name, each in values.items()}

    def _all(self) -> dict[str, list[float]]:
        """The exact sums of all steps; those that the last step has come first."""
        parts = self._added_up(sums for sums, _ in self._pending)
        last = self._pending[-1][0] if self._pending else {}
        return {name: parts[name] for name in [*last, *(name for name in parts if name not in last)]}

    def export(self) -> PartialEpoch:
        """Return all that has been summed up, exactly; `sums` has SUM_PARTS rows."""
        self._settle()
        parts = self._all()
        rows = np.zeros((SUM_PARTS, len(parts)))
        for column, each in enumerate(parts.values()):
            rows[: len(each), column] = each
        seconds = self._before.seconds + time.perf_counter() - self._begin
        return PartialEpoch(tuple(parts), rows, self.steps, self._before.images + self._images, seconds)

    def last_loss(self) -> float:
        return self.loss_of(self.steps)

    def loss_of(self, step: int) -> float:
        """Return this rank's loss of one of the last two steps, counted from 1."""
        sums, count = self._pending[step - self.steps - 1]
        return self._values({name: float(value) for name, value in sums.items()}, count)["loss"]

    def reduce(self, world: World) -> EpochResult:
        """Add up over the ranks.

        Raises:
            UserError: the loss was not finite, on any rank.
        """
        parts = self._all()
        known = len(self._pending[-1][0]) if self._pending else len(parts)  # what an earlier loss had is left out
        mine = {name: math.fsum(each) for name, each in islice(parts.items(), known)}
        finite = all(math.isfinite(mine.get(name, 0.0)) for name in self._shares)
        ranks = world.all_gather({"names": list(mine), "finite": finite})
        if spoilt := [rank for rank, each in enumerate(ranks) if not each["finite"]]:
            raise UserError(f"{self._where}: the loss on the images of {name_ranks(spoilt)} is not finite (inf or nan)")
        names = max((each["names"] for each in ranks), key=len)  # a rank without examples knows no names
        totals = {name: mine.get(name, 0.0) for name in names}
        end = time.perf_counter()  # after the sums were read: that waits for the last step
        several = self._steps > 1
        later = self._images - self._images_of_first if several else self._images
        began = self._after_first if several else self._begin
        reduced = world.sum_values({**totals, "images": self._before.images + self._images, "later": later})
        return EpochResult(
            values=self._values({name: reduced[name] for name in names}, int(reduced["images"])),
            images=int(reduced["images"]),
            seconds=self._before.seconds + end - self._begin,
            images_per_second=reduced["later"] / max(end - began, 1e-9),
        )

    def _values(self, sums: Mapping[str, float], images: int) -> dict[str, float]:
        """The loss, its parts where it has several, and the means of all else."""
        parts = {"reconstruction_loss": sums.get("reconstruction_loss", 0.0) / (sums.get("weight") or 1.0)}
        others = {name: value / max(images, 1) for name, value in sums.items() if name not in ("weight", *parts)}
        values = {**parts, **others}
        loss = math.fsum(share * values.get(name, 0.0) for name, share in self._shares.items())
        return {"loss": loss, **(values if len(self._shares) > 1 else others)}
