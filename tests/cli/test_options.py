"""What `pretrain` and `classify` refuse before TensorFlow is loaded: weights that are not there, the other's file."""

import json

import pytest
import yaml
from conftest import write_config, write_training_and_testing

from tfinpaint.cli.options import load_checked
from tfinpaint.config.schema import ConfigError


@pytest.fixture
def files(tmp_path):
    """The configurations of a pretraining, which has not run, and of a classifier that starts from it."""
    data = write_training_and_testing(tmp_path)
    run = str(tmp_path / "runs" / "pretrain")
    classifier = {"checkpoints__load": run, "workdir": str(tmp_path / "runs" / "classify")}
    return {
        "pretrain": write_config(tmp_path / "pretrain.yaml", "pretrain", data, workdir=run),
        "classify": write_config(tmp_path / "classify.yaml", "classify", data, **classifier),
    }


def refusal(path, task):
    with pytest.raises(ConfigError) as refused:
        load_checked(path, [], task, 1)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_a_classifier_before_its_pretraining_is_told_to_run_it(files, tmp_path):
    told = f"{files['classify']}: checkpoints.load: no such checkpoint: {tmp_path}/runs/pretrain; there is no folder "
    todo = "; run `tfinpaint pretrain` first, name another run, or --set checkpoints.load=null to train from scratch"
    assert refusal(files["classify"], "classify") == f"{told}{tmp_path}/runs{todo}"
    (tmp_path / "runs").mkdir()
    message = refusal(files["classify"], "classify")
    assert message.endswith(f"runs/pretrain; {tmp_path}/runs holds nothing of that name{todo}")


@pytest.mark.parametrize(("task", "other"), [("pretrain", "classify"), ("classify", "pretrain")])
def test_the_configuration_of_the_other_command_names_the_command_to_start(files, task, other):
    assert refusal(files[other], task).endswith(
        f"this configuration is for {other}: start it with `tfinpaint {other}`, or name the one of {task}"
    )


def test_data_that_are_not_there_name_the_command_that_makes_them(files):
    values = yaml.safe_load(files["pretrain"].read_text())
    values["data"]["input_path"] = "nowhere/training"
    files["pretrain"].write_text(json.dumps(values))
    message = refusal(files["pretrain"], "pretrain")
    assert message.endswith("/nowhere/training; name a folder of images, or make this one with `tfinpaint prepare`")
