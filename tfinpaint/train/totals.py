"""The sums of an epoch: over its steps, then over the ranks.

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

SUM_PARTS = 8  # float64 numbers for an exact sum; that of float32 numbers needs six (277 bits and some for their count)
MOST_PENDING = 256  # steps whose tensors are kept before they are added up


@dataclass(frozen=True)
class EpochResult:
    """The results of one epoch of training or evaluation, over all ranks.

    Attributes:
        values: means of the loss (weighted as the objective says) and of each metric over the images.
        images: number of images.
        seconds: wall time.
        images_per_second: of all ranks, without the first step, which compiles or waits for the first batch.
    """

    values: dict[str, float]
    images: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class PartialEpoch:
    """The steps done of an epoch, on this rank.

    Attributes:
        names: names of the columns of `sums`.
        sums: float64 [any number, names]; the exact sum over the first axis is that over the images of these steps.
        steps: number of steps.
        images: number of images in these steps.
        seconds: wall time of these steps.
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
    """Return at most SUM_PARTS numbers with the exact sum of the values; a single one where that is not finite.

    `math.fsum` rounds the exact sum once. The next number is what the one before has lost by rounding.
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
    """Return "rank 1" or "ranks 1, 2"."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


class Totals:
    """Sums over one epoch on this rank, then over all ranks.

    Args:
        shares: name of each part of the loss -> its factor in the whole.
        where: name of the epoch, for messages.
        so_far: the sums of an earlier process.
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
        """Number of steps, those of an earlier process included."""
        return self._before.steps + self._steps

    def add(self, sums: dict[str, tf.Tensor], count: int) -> None:
        """Add the sums of a step over its images, and the number of images."""
        self._pending.append((sums, count))
        self._steps += 1
        self._images += count
        if self._steps == 1:
            self._after_first, self._images_of_first = time.perf_counter(), count
        if len(self._pending) > MOST_PENDING:
            self._reduce_pending()

    def _reduce_pending(self) -> None:
        """Add up all steps but the last two, whose loss may still be read; the device may be computing the last one."""
        done, self._pending = self._pending[:-2], self._pending[-2:]
        self._parts = self._added_up(sums for sums, _ in done)

    def _added_up(self, steps: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
        """Return the exact sums of what was added up before and of these steps."""
        values = {name: list(parts) for name, parts in self._parts.items()}
        for sums in steps:
            for name, value in sums.items():
                values.setdefault(name, []).append(float(value))
        return {name: exact_parts(each) for name, each in values.items()}

    def _all(self) -> dict[str, list[float]]:
        """Return the exact sums of all steps; the names that the last step has come first."""
        parts = self._added_up(sums for sums, _ in self._pending)
        last = self._pending[-1][0] if self._pending else {}
        return {name: parts[name] for name in [*last, *(name for name in parts if name not in last)]}

    def export(self) -> PartialEpoch:
        """Return the epoch so far; `sums` has SUM_PARTS rows."""
        self._reduce_pending()
        parts = self._all()
        rows = np.zeros((SUM_PARTS, len(parts)))
        for column, each in enumerate(parts.values()):
            rows[: len(each), column] = each
        seconds = self._before.seconds + time.perf_counter() - self._begin
        return PartialEpoch(tuple(parts), rows, self.steps, self._before.images + self._images, seconds)

    def last_loss(self) -> float:
        """Return this rank's loss of the last step."""
        return self.loss_of(self.steps)

    def loss_of(self, step: int) -> float:
        """Return this rank's loss of one of the last two steps, counted from 1."""
        sums, count = self._pending[step - self.steps - 1]
        return self._values({name: float(value) for name, value in sums.items()}, count)["loss"]

    def reduce(self, world: World) -> EpochResult:
        """Add up the sums of all ranks.

        Raises:
            UserError: the loss was not finite, on any rank.
        """
        parts = self._all()
        known = len(self._pending[-1][0]) if self._pending else len(parts)  # parts of an earlier loss are dropped
        mine = {name: math.fsum(each) for name, each in islice(parts.items(), known)}
        finite = all(math.isfinite(mine.get(name, 0.0)) for name in self._shares)
        ranks = world.all_gather({"names": list(mine), "finite": finite})
        if nonfinite := [rank for rank, each in enumerate(ranks) if not each["finite"]]:
            raise UserError(
                f"{self._where}: the loss on the images of {name_ranks(nonfinite)} is not finite (inf or nan)"
            )
        names = max((each["names"] for each in ranks), key=len)  # a rank without examples has no names
        totals = {name: mine.get(name, 0.0) for name in names}
        end = time.perf_counter()  # after reading the sums, which waits for the last step
        later, took = self._timed(end)
        reduced = world.sum_values({**totals, "images": self._before.images + self._images, "later": later})
        return EpochResult(
            values=self._values({name: reduced[name] for name in names}, int(reduced["images"])),
            images=int(reduced["images"]),
            seconds=self._before.seconds + end - self._begin,
            images_per_second=reduced["later"] / max(took, 1e-9),
        )

    def _timed(self, end: float) -> tuple[int, float]:
        """Return the number of images by which the speed is measured, and the seconds that they took until `end`."""
        if self._steps > 1:
            return self._images - self._images_of_first, end - self._after_first
        if not self._steps and self._before.steps:  # all steps were done by an earlier process
            return self._before.images, self._before.seconds
        return self._images, end - self._begin

    def _values(self, sums: Mapping[str, float], images: int) -> dict[str, float]:
        """Return the loss, its parts where it is not one of them alone, and the means of everything else."""
        name = "reconstruction_loss"
        parts = {name: sums.get(name, 0.0) / (sums.get("weight") or 1.0)} if name in self._shares else {}
        others = {name: value / max(images, 1) for name, value in sums.items() if name not in ("weight", *parts)}
        values = {**parts, **others}
        loss = math.fsum(share * values.get(name, 0.0) for name, share in self._shares.items())
        is_whole = list(self._shares.values()) == [1.0]
        return {"loss": loss, **(others if is_whole else values)}
