"""The published set-ups, and the page made from what was measured."""

import json
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "scripts" / "scaling"))
import scaling_model as model
import scaling_report as report
from conftest import ROOT

INPUTS = ROOT / "docs" / "scaling.json"


@pytest.fixture(scope="module")
def networks() -> dict[str, dict]:
    return json.loads(INPUTS.read_text())["networks"]


def test_sizes_of_the_networks(networks):
    # Trainable parameters: 43,068,355 of ours; those of the others as keras.applications tells them.
    sizes = {name: sum(size for size, _ in network["gradients"]) / 4 for name, network in networks.items()}
    parameters = {"inpainter": 43068355, "resnet101": 44601832, "inception_v3": 23817352, "vgg16": 138357544}
    assert sizes == parameters


def test_vgg_scales_worse_than_resnet(networks):
    jobs = report.published_jobs(networks, noise=0.0)
    vgg, resnet = (model.predict(jobs[name], report.GPU_CLUSTER, 512).efficiency for name in ("vgg16", "resnet101"))
    assert vgg < resnet - 0.05


def test_the_noise_is_that_of_the_one_point_it_is_calibrated_on(networks):
    jobs = report.published_jobs(networks, report.calibrated_noise(networks))
    assert model.predict(jobs["resnet101"], report.GPU_CLUSTER, 512).efficiency == pytest.approx(0.9, abs=1e-6)


def test_our_network_computes_as_many_multiply_adds_per_second_as_resnet(networks):
    ours, theirs = report.our_job(networks, 0.0), report.published_jobs(networks, 0.0)["resnet101"]
    rates = [
        job.per_rank_batch * networks[name]["macs_per_image"] / job.step_s
        for name, job in (("inpainter", ours), ("resnet101", theirs))
    ]
    assert rates[0] == pytest.approx(rates[1])
    assert ours.per_rank_batch == 32


def test_the_tables_in_the_docs_are_those_of_the_model():
    text = (ROOT / "docs" / "scaling.md").read_text()
    assert report.updated(text, report.tables(INPUTS)) == text, "run scripts/scaling/scaling_report.py"
