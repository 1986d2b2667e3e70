"""Ranks that break: some cases of tests/stress/fault_matrix.py, which has them all."""

import os

import fault_matrix
import pytest

pytestmark = [pytest.mark.parallel, pytest.mark.stress]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "images"
    fault_matrix.make_images(folder)
    return folder


@pytest.mark.parametrize(
    ("launcher", "ranks", "fault", "phase", "first"),
    [
        ("bare", 3, "kill", "evaluation", False),
        ("bare", 2, "stop", "saving", True),
        ("mpirun", 2, "hang", "training", False),
        ("gloo", 2, "exception", "saving", False),
    ],
)
def test_every_survivor_ends_and_the_cause_is_named(pictures, tmp_path, launcher, ranks, fault, phase, first):
    wrong, output, _ = fault_matrix.run_case(launcher, ranks, fault, phase, tmp_path / "case", pictures, first=first)
    assert wrong == [], output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small disk")
def test_a_full_disk_ends_every_rank_and_keeps_what_was_saved(pictures, tmp_path):
    wrong, output, _ = fault_matrix.run_case("mpirun", 2, "disk", "saving", tmp_path / "case", pictures)
    assert wrong == [], output
