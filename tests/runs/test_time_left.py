"""The time left, on a clock that is not the machine's."""

import pytest

from tfinpaint.runs.time_left import TimeLeft


def run(left: TimeLeft, first_step: int, epochs: int, steps: int, durations):
    """Yield (share of the run that is done, the estimate, the truth) after every step and every epoch's end.

    Args:
        durations: (first step of the process, step, first end, end) in seconds.
    """
    compiled, step, first_end, end = durations
    now, moments, clock = 0.0, [], 0.0
    for number in range(first_step + 1, epochs * steps + 1):
        now += compiled if number == first_step + 1 else step
        moments.append((now, number, True))
        if number % steps == 0:
            now += first_end if number <= first_step + steps else end
            moments.append((now, number, False))
    for clock, number, is_step in moments:
        if is_step:
            left.step(clock)
        yield (number - first_step) / (epochs * steps - first_step), left.seconds(clock), now - clock


@pytest.mark.parametrize(
    ("first_step", "epochs", "steps", "durations", "end_in_steps"),
    [
        (0, 6, 25, (51.0, 2.0, 40.0, 20.0), 8),  # as in the demo
        (0, 12, 10, (140.0, 2.0, 5.0, 5.0), 3),
        (0, 1, 200, (60.0, 0.5, 30.0, 30.0), 50),
        (0, 3, 40, (30.0, 1.0, 80.0, 80.0), 70),  # evaluation takes longer than training
        (95, 6, 25, (60.0, 2.0, 40.0, 20.0), 8),  # resumed within an epoch
        (100, 6, 25, (60.0, 2.0, 40.0, 20.0), 8),  # and between two
        (0, 300, 1, (20.0, 1.0, 3.0, 2.0), 1),
        (0, 40, 2, (20.0, 1.0, 3.0, 2.0), 1),
    ],
)
def test_the_estimate_is_true_within_half_from_a_tenth_on(first_step, epochs, steps, durations, end_in_steps):
    left = TimeLeft(first_step=first_step, num_epochs=epochs, steps_per_epoch=steps, end_in_steps=end_in_steps)
    compared = 0
    for done, estimate, truth in run(left, first_step, epochs, steps, durations):
        if done >= 0.1 and truth > 0 and estimate is not None:
            assert truth / 1.5 - 2 <= estimate <= 1.5 * truth + 2, (done, estimate, truth)
            compared += 1
    assert compared >= 0.8 * (epochs * steps - first_step)


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
