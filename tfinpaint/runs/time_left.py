"""Estimate how long a run still takes from the time that its steps and the ends of its epochs have taken."""

from __future__ import annotations

import statistics
from collections import deque

RECENT_STEPS = 200  # in the mean: steps of the first epoch may be slower, as images come from the disk


class TimeLeft:
    """An estimate of the time that is left. The first step of this process does not count, because it is compiled."""

    def __init__(self, *, first_step: int, num_epochs: int, steps_per_epoch: int, end_in_steps: float = 0.0) -> None:
        """
        Args:
            first_step: number of steps that were done before.
            end_in_steps: cost of the end of an epoch (batch-norm statistics, evaluation) in training steps, used as
                long as none has been timed.
        """
        self._done, self._num_epochs, self._per_epoch = first_step, num_epochs, steps_per_epoch
        self._end_in_steps = end_in_steps
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)  # seconds
        self._ends: list[float] = []  # seconds
        self._last: float | None = None  # when the newest step was done

    def step(self, now: float) -> None:
        """Record that a step was done at `now`, in seconds of a monotonic clock."""
        begins_epoch = self._per_epoch > 1 and self._done % self._per_epoch == 0
        if self._last is not None and not begins_epoch:
            self._steps.append(now - self._last)
        elif self._last is not None and self._steps:  # the end of the previous epoch lies between
            self._ends.append(max(0.0, now - self._last - statistics.fmean(self._steps)))
        self._done, self._last = self._done + 1, now

    def seconds(self, now: float) -> float | None:
        """Return the seconds that are left; None as long as no step has been timed."""
        if self._last is None or not self._steps:
            return None
        step, since = statistics.fmean(self._steps), now - self._last
        end = self._end(step)
        ends = self._num_epochs - (self._done - 1) // self._per_epoch
        if self._done % self._per_epoch == 0:  # at an epoch's end
            ends, rest = ends - 1, max(0.0, end - since)
        else:
            rest = -min(since, step)
        return max(0.0, (self._num_epochs * self._per_epoch - self._done) * step + ends * end + rest)

    def _end(self, step: float) -> float:
        if self._per_epoch == 1:  # it is part of each step
            return 0.0
        expected = self._end_in_steps * step
        if len(self._ends) == 1:  # it has compiled the evaluation
            return (self._ends[0] + (expected or self._ends[0])) / 2
        return statistics.fmean(self._ends[1:]) if self._ends else expected
