"""Configurations that a Python program gives: values beside a file, mappings, and the configuration of another run."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write_config

from tfinpaint.config.loader import load_config, load_values
from tfinpaint.config.schema import ConfigError


@pytest.fixture
def config(images, tmp_path):
    return write_config(tmp_path / "c.yaml", "pretrain", images, encoder="tiny")


def test_values_beside_a_file_are_merged_section_by_section(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {"data": {"batch_size": 4, "test_input_path": "data/training", "transforms": ({"resize": (16, 16)},)}}
    found = load_config(config, changes=changes)
    assert (found.data.batch_size, found.data.test_batch_size) == (4, 4)
    assert found.data.test_input_path == tmp_path / "data" / "training"
    assert [step.kind for step in found.data.transforms] == ["resize"]
    assert load_config(config, changes={"seed": 1}, workdir=Path("other")).workdir == tmp_path / "other"


def test_a_configuration_of_a_run_takes_its_outputs_to_another_run_folder(config, tmp_path):
    first = load_config(config)
    second = load_values(first, {"seed": np.int64(3), "optimizer": {"learning_rate": np.float32(0.5)}}, tmp_path / "b")
    assert (second.seed, second.optimizer.learning_rate, second.workdir) == (3, 0.5, tmp_path / "b")
    assert second.checkpoints.save == tmp_path / "b" / "model_checkpoints"
    assert second.data == first.data
    assert load_values(first, {}) == first


def test_wrong_values_name_their_keyword(config):
    with pytest.raises(ConfigError, match=r"^keyword data: data\.batch_size: .* \(given: 'many'\)"):
        load_config(config, changes={"data": {"batch_size": "many"}})
    with pytest.raises(ConfigError, match=r"^configuration: unknown key num_epoch; did you mean num_epochs\?$"):
        load_values({"workdir": "runs/a", "num_epoch": 2}, {})
    with pytest.raises(ConfigError, match="workdir is missing: name the run folder"):
        load_values({}, {})
