"""How long jobs take, from the trainings that have finished."""

import pytest

from tfinpaint.sweeping.times import add_time, known_speed, measure_speed


def test_the_speed_is_the_median_of_the_finished_trainings(tmp_path):
    assert known_speed(tmp_path) is None
    metrics = tmp_path / "metrics.jsonl"
    for work, seconds, epochs in ((100, 12, (3, 2)), (200, 30, (10, 10)), (100, 16, (4, 5))):
        metrics.write_text("".join(f'{{"seconds": {each}}}\n' for each in epochs))
        add_time(tmp_path, work, seconds, metrics)
    speed = known_speed(tmp_path)
    assert (speed.start, speed.image) == (7, 0.09)
    assert speed.seconds([100, 300]) == pytest.approx(2 * 7 + 400 * 0.09)
    (tmp_path / "times.json").write_text("[1]")
    assert known_speed(tmp_path) is None


def test_a_training_that_was_resumed_says_nothing_of_the_time(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"seconds": 8}\n{"seconds": 2}\n')
    add_time(tmp_path, 100, 5, metrics)  # the first epoch ran before
    assert known_speed(tmp_path) is None


def test_a_measured_training_counts_its_second_epoch_alone(monkeypatch):
    times = iter([100.0, 112.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))

    def run(folder):
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"seconds": 9}\n{"seconds": 2, "images_per_second": 50.0}\n')

    speed = measure_speed(run)
    assert (speed.start, speed.image) == (10.0, 0.02)
