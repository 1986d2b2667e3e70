"""Estimate how long a run still takes from the time that its steps and the ends of its epochs have taken."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from itertools import islice

RECENT_STEPS = 200  # at most half of these are in the mean


class TimeLeft:
    """An estimate of the time that is left.

    The first step of this process does not count, because it is compiled. Of the others the newer half counts, because
    the first ones may be slower: images come from the disk, and memory is being reserved. Checkpoints within epochs are
    part of the steps; evaluation, checkpoints and pictures at the end of an epoch are timed together.
    """

    def __init__(
        self,
        *,
        first_step: int,
        num_epochs: int,
        steps_per_epoch: int,
        end_in_steps: float = 0.0,
        probe_every: int | None = None,
        probe_seconds: float = 0.0,
    ) -> None:
        """
        Args:
            first_step: number of steps that were done before.
            end_in_steps: cost of the end of an epoch (batch-norm statistics, evaluation) in training steps, used as
                long as none has been timed.
            probe_every: number of epochs between two probes of the encoder, the last epoch has one too; None for none.
            probe_seconds: duration of a probe, used as long as none has been timed.
        """
        self._done, self._num_epochs, self._per_epoch = first_step, num_epochs, steps_per_epoch
        self._end_in_steps, self._probe_every, self._probe_seconds = end_in_steps, probe_every, probe_seconds
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)  # seconds
        self._ends: list[float] = []  # seconds, without a probe
        self._probed_ends: list[float] = []  # seconds, with one
        self._last: float | None = None  # when the newest step was done

    def step(self, now: float) -> None:
        """Record that a step was done at `now`, in seconds of a monotonic clock."""
        begins_epoch = self._per_epoch > 1 and self._done % self._per_epoch == 0
        if self._last is not None and not begins_epoch:
            self._steps.append(now - self._last)
        elif self._last is not None and self._steps:  # the end of the previous epoch lies between
            ends = self._probed_ends if self._is_probed(self._done // self._per_epoch) else self._ends
            ends.append(max(0.0, now - self._last - self._step_seconds()))
        self._done, self._last = self._done + 1, now

    def seconds(self, now: float) -> float | None:
        """Return the seconds that are left; None as long as no step has been timed."""
        if self._last is None or not self._steps:
            return None
        step, since = self._step_seconds(), now - self._last
        plain, probed = self._end_seconds(step)
        epoch = (self._done - 1) // self._per_epoch + 1  # the one whose end comes next, or lasts
        probes = sum(map(self._is_probed, range(epoch, self._num_epochs + 1)))
        ends = probes * probed + (self._num_epochs - epoch + 1 - probes) * plain
        next_end = probed if self._is_probed(epoch) else plain
        left = (self._num_epochs * self._per_epoch - self._done) * step + ends
        return max(0.0, left - min(since, next_end if self._done % self._per_epoch == 0 else step))

    def _step_seconds(self) -> float:
        """Return the mean duration of the newer half of the steps."""
        return statistics.fmean(islice(self._steps, len(self._steps) // 2, None))

    def _is_probed(self, epoch: int) -> bool:
        return self._probe_every is not None and (epoch % self._probe_every == 0 or epoch == self._num_epochs)

    def _end_seconds(self, step: float) -> tuple[float, float]:
        """Return the seconds that the end of an epoch takes without a probe and with one, for a step of so many."""
        if self._per_epoch == 1:  # it is part of each step
            return 0.0, 0.0
        plain = _typical(self._ends, self._end_in_steps * step)
        return plain, _typical(self._probed_ends, plain + self._probe_seconds)


def _typical(timed: Sequence[float], expected: float) -> float:
    """Return the mean of what was timed; the first one counts little, because it compiles what it runs."""
    if len(timed) == 1:
        return (timed[0] + (expected or timed[0])) / 2
    return statistics.fmean(timed[1:]) if timed else expected
