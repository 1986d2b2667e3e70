"""The time left, on a clock that is not the machine's."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tfinpaint.runs.time_left import TimeLeft


@dataclass
class Pretended:
    """A run on a pretended clock; durations in seconds.

    Attributes:
        compiled: of the first step of the process.
        slow: of the `slow_steps` steps that follow it.
        first_end: of the end of the first epoch, in which the evaluation is compiled.
        probe: of a probe, which comes every `every` epochs and after the last one.
    """

    epochs: int
    steps: int
    compiled: float
    step: float
    first_end: float
    end: float
    first_step: int = 0
    slow: float = 0.0
    slow_steps: int = 0
    every: int | None = None
    probe: float = 0.0
    save_every: int | None = None
    save: float = 0.0

    def step_seconds(self, number: int) -> float:
        saved = self.save if self.save_every and number % self.save_every == 0 else 0.0
        if number == self.first_step + 1:
            return self.compiled
        return saved + (self.slow if number <= self.first_step + 1 + self.slow_steps else self.step)

    def end_seconds(self, epoch: int) -> float:
        probed = self.every and (epoch % self.every == 0 or epoch == self.epochs)
        first = epoch == self.first_step // self.steps + 1
        return (self.first_end if first else self.end) + (self.probe if probed else 0.0)

    def follow(self, left: TimeLeft) -> Iterator[tuple[float, float | None, float]]:
        """Yield (share of the run that is done, the estimate, the truth) after every step and every epoch's end."""
        now, moments = 0.0, []
        for number in range(self.first_step + 1, self.epochs * self.steps + 1):
            now += self.step_seconds(number)
            moments.append((now, number, True))
            if number % self.steps == 0:
                now += self.end_seconds(number // self.steps)
                moments.append((now, number, False))
        for clock, number, is_step in moments:
            if is_step:
                left.step(clock)
            done = (number - self.first_step) / (self.epochs * self.steps - self.first_step)
            yield done, left.seconds(clock), now - clock


@pytest.mark.parametrize(
    ("run", "end_in_steps"),
    [
        (Pretended(6, 25, 51.0, 2.0, 40.0, 20.0), 8),  # compiles for as long as 25 steps
        (Pretended(12, 10, 140.0, 2.0, 5.0, 5.0), 3),
        (Pretended(1, 200, 60.0, 0.5, 30.0, 30.0), 50),
        (Pretended(3, 40, 30.0, 1.0, 80.0, 80.0), 70),  # evaluation takes longer than training
        (Pretended(6, 25, 60.0, 2.0, 40.0, 20.0, first_step=95), 8),  # resumed within an epoch
        (Pretended(6, 25, 60.0, 2.0, 40.0, 20.0, first_step=100), 8),  # and between two
        (Pretended(300, 1, 20.0, 1.0, 3.0, 2.0), 1),
        (Pretended(40, 2, 20.0, 1.0, 3.0, 2.0), 1),
        (Pretended(6, 25, 51.0, 2.0, 20.0, 20.0, slow=15.0, slow_steps=5), 8),
        (Pretended(1, 400, 51.0, 0.5, 10.0, 10.0, slow=6.0, slow_steps=15), 20),
        (Pretended(10, 20, 30.0, 1.0, 9.0, 5.0, every=2, probe=60.0), 5),
        (Pretended(20, 20, 30.0, 1.0, 9.0, 5.0, every=5, probe=60.0), 5),
        (Pretended(5, 20, 30.0, 1.0, 9.0, 5.0, every=1, probe=60.0), 5),
        (Pretended(5, 200, 30.0, 0.2, 9.0, 5.0, save_every=25, save=2.0), 20),
    ],
)
def test_the_estimate_is_true_within_half_from_a_tenth_on(run, end_in_steps):
    left = TimeLeft(
        first_step=run.first_step, num_epochs=run.epochs, steps_per_epoch=run.steps, end_in_steps=end_in_steps,
        probe_every=run.every, probe_seconds=run.probe,
    )  # fmt: skip
    compared = 0
    for done, estimate, truth in run.follow(left):
        if done >= 0.1 and truth > 0 and estimate is not None:
            assert truth / 1.5 - 2 <= estimate <= 1.5 * truth + 2, (done, estimate, truth)
            compared += 1
    assert compared >= 0.8 * (run.epochs * run.steps - run.first_step)


def test_nothing_is_said_before_a_step_was_timed_and_little_at_the_end():
    left = TimeLeft(first_step=0, num_epochs=1, steps_per_epoch=3)
    assert left.seconds(10.0) is None
    left.step(60.0)  # compiled
    assert left.seconds(61.0) is None
    left.step(62.0)
    assert left.seconds(62.0) == 2.0
    assert left.seconds(63.5) == 0.5
    left.step(64.0)
    assert left.seconds(65.0) == 0.0


def test_images_that_come_faster_after_the_first_epoch_are_followed():
    left = TimeLeft(first_step=0, num_epochs=10, steps_per_epoch=300)
    now = 0.0
    for number in range(600):
        now += 2.0 if number < 300 else 0.5
        left.step(now)
    assert left.seconds(now) == pytest.approx(2400 * 0.5)
