"""What `precision: auto` means for a run, and that a resumed run keeps it."""

import json
import logging

import pytest
import yaml
from commandline import refuse, succeed
from conftest import write_small, write_training_and_testing

from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import Config
from tfinpaint.distributed.world import World
from tfinpaint.runs import precision
from tfinpaint.runs.precision import recorded_precision, settle_precision

TRAINING = Config.model_validate({"data": {"input_path": "images"}})


class Ranks(World):
    """Rank 0 of several, the others of which have other processors."""

    def __init__(self, *others: tuple[bool, str]) -> None:
        super().__init__()
        self.others = others

    def all_gather(self, value: object) -> list:
        return [value, *self.others]


@pytest.fixture
def processor(monkeypatch):
    """Give the processor some instruction sets."""
    return lambda *features: monkeypatch.setattr(precision, "processor_features", lambda: features)


@pytest.mark.parametrize(
    ("features", "expected", "reason"),
    [
        (("AVX2", "AVX512F", "AVX512_BF16"), "mixed_bfloat16", "the hardware computes in bfloat16 (AVX512_BF16)"),
        (("AVX2", "AMX_BF16"), "mixed_bfloat16", "the hardware computes in bfloat16 (AMX_BF16)"),
        (("AVX2", "AVX512F"), "float32", "does not compute in bfloat16 (neither AMX_BF16 nor AVX512_BF16)"),
    ],
)
def test_auto_goes_by_the_processor(caplog, processor, features, expected, reason):
    processor(*features)
    with caplog.at_level(logging.INFO):
        assert settle_precision(TRAINING, World(), None).precision == expected
    assert [f"Precision: {expected}, because" in caplog.text, reason in caplog.text] == [True, True]


def test_without_onednn_bfloat16_would_be_slow(processor, monkeypatch):
    processor("AVX512_BF16")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert settle_precision(TRAINING, World(), None).precision == "float32"


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "mixed_bfloat16"), ((7, 5), "float32")])
def test_auto_goes_by_the_weakest_gpu(monkeypatch, processor, capability, expected):
    processor("AVX512_BF16")  # has no say
    details = {"a": {"compute_capability": (8, 0)}, "b": {"compute_capability": capability, "device_name": "T"}}
    monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda kind: list(details))
    monkeypatch.setattr(precision.tf.config.experimental, "get_device_details", details.__getitem__)
    assert settle_precision(TRAINING, World(), None).precision == expected


def test_one_rank_without_bfloat16_is_enough_for_float32(caplog, processor):
    processor("AVX512_BF16")
    with caplog.at_level(logging.INFO):
        assert settle_precision(TRAINING, Ranks((True, "AMX_BF16"), (False, "old")), None).precision == "float32"
    assert "does not compute in bfloat16 (rank 2: old)" in caplog.text


def test_an_evaluation_and_an_explicit_precision_do_not_go_by_the_hardware(processor):
    processor("AVX512_BF16")
    assert settle_precision(Config(), World(), None).precision == "float32"
    for chosen in ("float32", "mixed_bfloat16", "mixed_float16"):
        config = TRAINING.model_copy(update={"precision": chosen})
        assert settle_precision(config, World(), {"precision": "float32"}) is config


def test_records_of_older_versions_are_of_float32():
    assert [recorded_precision(values) for values in ({}, {"precision": "mixed_float16"})] == [
        "float32",
        "mixed_float16",
    ]


def test_files_of_rmldnn_keep_float32(tmp_path):
    path = tmp_path / "rmldnn.json"
    for asked, expected in (({}, "float32"), ({"precision": "auto"}, "auto")):
        path.write_text(json.dumps({"neural_network": {"num_epochs": 1, **asked}}))
        assert load_config(path).precision == expected
    path.write_text(json.dumps({"num_epochs": 1}))
    assert load_config(path).precision == "auto"


@pytest.mark.stress
def test_a_resumed_run_keeps_the_precision_that_is_recorded(tmp_path, processor):
    processor("AVX512_BF16")
    config = write_small(tmp_path, write_training_and_testing(tmp_path), precision="auto", num_epochs=1)
    succeed("classify", "--config", config)
    resolved = tmp_path / "run" / "config.resolved.yaml"
    assert yaml.safe_load(resolved.read_text())["precision"] == "mixed_bfloat16"
    processor()
    resume = ("classify", "--config", config, "--resume")
    assert "Precision: mixed_bfloat16, in which the run was begun" in succeed(*resume)
    assert yaml.safe_load(resolved.read_text())["precision"] == "mixed_bfloat16"
    message = refuse(*resume, "--set", "precision=float32")
    assert "precision: mixed_bfloat16 -> float32" in message
