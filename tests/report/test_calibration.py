"""Calibration: the error of its definition, whatever the parts that are added up."""

import numpy as np
import pytest
from PIL import Image

from tfinpaint.report import calibration
from tfinpaint.report.calibration import INTERVALS, Calibration, draw_reliability


def test_the_error_is_that_of_the_definition():
    # two images at 0.9 (one is right) and two at 0.6 (both are right)
    found = Calibration.of(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True]))
    np.testing.assert_allclose(found.intervals, [[2, 0.6, 1.0], [2, 0.9, 0.5]])
    assert found.error == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert found.sentence() == (
        "The mean probability of the predicted class, 0.750, is as high as the accuracy; the expected calibration error "
        "is 0.400."
    )
    assert found.as_json()["intervals"][1] == {"images": 2, "mean_probability": pytest.approx(0.9), "accuracy": 0.5}


def test_intervals_have_equal_widths_and_a_certain_prediction_is_in_the_last_one():
    edges = np.arange(INTERVALS + 1) / INTERVALS
    found = Calibration.of(edges + 1e-9 * (edges < 1), np.ones(INTERVALS + 1, bool))
    assert found.sums[:, 0].tolist() == [1] * (INTERVALS - 1) + [2]


def test_too_high_probabilities_are_told():
    found = Calibration.of(np.full(10, 0.95), np.arange(10) < 6)
    assert "0.950, is 35 points above the accuracy, 0.600; the expected calibration error is 0.350" in found.sentence()


def test_a_difference_of_a_point_is_in_the_singular():
    found = Calibration.of(np.full(100, 0.91), np.arange(100) < 90)
    assert "is 1 point above the accuracy, 0.900" in found.sentence()


def test_parts_add_up_and_nothing_is_not_a_number(tmp_path):
    generator = np.random.default_rng(0)
    confidence, right = generator.random(500).astype(np.float32), generator.random(500) < 0.5
    whole = Calibration.of(confidence, right)
    parts = [Calibration.of(confidence[rank::3], right[rank::3]).sums.tolist() for rank in range(3)]
    np.testing.assert_allclose(Calibration.added(parts).sums, whole.sums)
    assert np.isnan(Calibration.of(confidence[:0], right[:0]).error)
    draw_reliability(whole, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as drawn:
        assert drawn.info["Description"].startswith("Reliability diagram: ")


def test_intervals_of_few_images_are_grey_and_not_connected(monkeypatch, tmp_path):
    """With 60 images they would make a line that jumps between 0 and 1, which looks alarming."""
    confidence = np.array([0.5] * 3 + [0.7] * 12 + [0.9] * 20 + [0.98] * 2)
    found = Calibration.of(confidence, np.arange(37) % 2 == 0)
    saved = []
    monkeypatch.setattr(calibration, "save_figure", lambda figure, *_: saved.append(figure))
    draw_reliability(found, tmp_path / "x.png")
    _, many, few = saved[0].axes[0].get_lines()
    assert np.allclose(many.get_xdata(), [0.7, 0.9])
    assert (many.get_linewidth(), few.get_linewidth()) == (1, 0)
    assert np.allclose(few.get_xdata(), [0.5, 0.98])
    assert few.get_label() == "fewer than 10 images"
    assert found.note().startswith("Grey points are intervals of fewer than 10 images")
    assert Calibration.of(np.full(50, 0.9), np.ones(50, bool)).note() == ""
