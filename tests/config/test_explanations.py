"""How a refused configuration is explained: its keys and values, text that is not YAML, files that do not exist."""

from pathlib import Path

import pytest
from conftest import ROOT
from test_loader import load

from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import ConfigError
from tfinpaint.system.paths import display_path


def message(tmp_path, text, *overrides):
    """Return the message with which a text is refused, without the folder of its file."""
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, text, *overrides)
    assert len(str(refusal.value).splitlines()) == 1
    return str(refusal.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_epochs: 2\ndata:\n  batchsize: 3\n", "config.yaml:3: unknown key data.batchsize; did you mean data.batch_size?"),
        ("num_epoch: 2\n", "config.yaml:1: unknown key num_epoch; did you mean num_epochs?"),
        ("data:\n  transforms:\n    - resiz: [1, 2]\n", "config.yaml:3: unknown key data.transforms.0.resiz; did you mean data.transforms.0.resize?"),
        ("data:\n  transforms:\n    - [1, 2]\n", "config.yaml:3: data.transforms.0: input should be a mapping of keys to values (given: [1, 2]); a step is such as `- resize: [128, 128]`"),
        ("data:\n  transforms:\n    - resize\n", "config.yaml:3: data.transforms.0: input should be a mapping of keys to values (given: 'resize'); a step is such as `- resize: [128, 128]`"),
        ("seed: 1\nnum_epochs: '2'\n", "config.yaml:2: num_epochs: input should be a valid integer (given: '2'); write it without quotes"),
        ("data: 3\n", "config.yaml:1: data: input should be a mapping of keys to values (given: 3); `tfinpaint config keys data.` lists its keys"),
    ],
)  # fmt: skip
def test_a_problem_is_reported_with_line_key_and_remedy(tmp_path, text, expected):
    assert message(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        ("", "optimizer.lr_scheduler={type:Cosine}",
         "--set optimizer.lr_scheduler={type:Cosine}: unknown key optimizer.lr_scheduler.type:Cosine; a space is missing after the "
         "colon: write `type: Cosine`"),
        ("", "data.transforms=[{resize: [32, 32]}, {random_patch: {number: 1, size: 4}}]",
         "unknown key data.transforms.1.random_patch; did you mean data.transforms.1.random_patches?"),
        ("", "training.num_epochs=3", "unknown key training; did you mean num_epochs?"),
        ("", "optimizer.adam.learning_rate=1e-3", "unknown key optimizer.adam; did you mean optimizer.learning_rate?"),
        ("data: {transforms: [{resize: 32}]}", "seed=1",
         "data.transforms.0.resize: input should be a valid list, such as [128, 128] (width, height) (given: 32)"),
        ("data: {transforms: [{center_crop: [32]}]}", "seed=1", "center_crop: expected at least 2 items, found 1, such as [128, 128] (width, height) (given: [32])"),
        ("data: {transforms: [{random_block: {side: 0.5}}]}", "seed=1", "a valid list, such as [0.1, 0.3] (given: 0.5)"),
        ("data: {transforms: {resize: [32, 32]}}", "seed=1", "data.transforms: input should be a valid list, such as - resize: [128, 128]"),
        ("num_epochs: '10'", "seed=1", "num_epochs: input should be a valid integer (given: '10'); write it without quotes"),
        ("optimizer: Adam", "seed=1", "optimizer: input should be a mapping of keys to values (given: 'Adam'); write `optimizer: {type: Adam}`"),
        ("optimizer: {type: Adma}", "seed=1", "'RMSprop', 'LARS' or 'LAMB' (given: 'Adma'); did you mean Adam?"),
        ("model: {encoder: resnet}", "seed=1", "or 'tiny' (given: 'resnet'); did you mean resnet50 or resnet18 or resnet101?"),
        ("data: {transforms: [{random_patches: 16}]}", "seed=1", "(given: 16); its keys are fill, number, size, area"),
        ("data: {transforms: [grayscale]}", "seed=1", "(given: 'grayscale'); write `- grayscale: {}`"),
        ("data: {transforms: [{resize: [8, 8]}]}", "data.transforms.7.resize=[8, 8]",
         "there is no data.transforms.7.resize; data.transforms has 1 items, counted from 0"),
        ("num_epochs: ten", "seed=1", "num_epochs: input should be a valid integer (given: 'ten')"),
    ],
)  # fmt: skip
def test_values_in_files_and_overrides_are_explained(tmp_path, text, override, expected):
    found = message(tmp_path, text, override)
    assert expected in found
    assert found.endswith(expected) or not expected.endswith((")", "?", "`", "quotes"))


def test_a_misspelt_key_is_named_before_the_one_that_is_missing(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, "data: {transforms: [{random_patches: {number: 4, sise: 8}}]}")
    first, second = str(refusal.value).splitlines()
    assert first.endswith(
        "unknown key data.transforms.0.random_patches.sise; did you mean data.transforms.0.random_patches.size?"
    )
    assert second.endswith("data.transforms.0.random_patches.size is missing, and has no default")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:\n  type: images\n    batch_size: 8\n", "config.yaml:3: not valid YAML: it is indented differently from the lines around it"),
        ("data:\n    type: images\n  batch_size: 8\n", "config.yaml:3: not valid YAML: it is indented differently from the lines around it"),
        ("data:\n  transforms:\n    - resize: [8, 8]\n   - random_zoom: 0.1\n", "config.yaml:4: not valid YAML: it is indented differently"),
        ("data:\n\ttype: images\n", "config.yaml:2: not valid YAML: it is indented with a tab; use spaces"),
        ("data:\n  type: images\n\tbatch_size: 8\n", "config.yaml:3: not valid YAML: it is indented with a tab; use spaces"),
        ("num_epochs:3\nseed: 1\n", "not valid YAML: a space is missing after a colon: write `num_epochs: 3`"),
        ("seed: 1\nnum_epochs:3\n", "not valid YAML: a space is missing after a colon: write `num_epochs: 3`"),
        ("data:\n  batch_size:8\n  preload: true\n", "not valid YAML: a space is missing after a colon: write `batch_size: 8`"),
        ("num_epochs:3\n", "config.yaml: expected a mapping of keys to values, found str; a space is missing after a colon"),
    ],
)  # fmt: skip
def test_common_mistakes_in_yaml_are_explained(tmp_path, text, expected):
    assert expected in message(tmp_path, text)


def test_a_file_that_is_not_there_names_the_one_that_may_be_meant(tmp_path, monkeypatch):
    def refused(path):
        with pytest.raises(ConfigError) as refusal:
            load_config(path)
        return str(refusal.value)

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"
    folder.mkdir()
    missing = folder / "config_trian.json"
    assert refused(missing) == f"{missing}: no such configuration file; there is no YAML or JSON file in {folder}"
    for name in ("config_train.json", "config_test.json", "notes.txt"):
        (folder / name).write_text("{}")
    assert refused(missing).endswith(f"no such configuration file; did you mean {folder}/config_train.json?")
    assert refused((folder / "mine.yaml").relative_to(tmp_path)).endswith(
        "there are config_test.json, config_train.json"
    )
    assert refused(folder.relative_to(tmp_path)) == (
        "configs: is a folder; name a file in it; there are config_test.json, config_train.json"
    )
    (folder / "config_test.json").unlink()
    assert refused(folder.relative_to(tmp_path)).endswith("did you mean ./configs/config_train.json?")
    assert refused(tmp_path / "no" / "c.yaml").endswith(f"no such configuration file; there is no folder {tmp_path}/no")
    assert "no such configuration file" in refused(folder / "config_train.json" / "c.yaml")


def test_files_that_are_not_alike_or_no_configurations_are_not_proposed(tmp_path, monkeypatch):
    def refused(name):
        with pytest.raises(ConfigError) as refusal:
            load_config(Path(name))
        return str(refusal.value)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()
    for name in ("a.yaml", "f.yaml", "project/pretrain.yaml", "project/classify.yaml", "project/project.json"):
        Path(name).write_text("{}")
    assert refused("my.yaml") == "my.yaml: no such configuration file; there are a.yaml, f.yaml"
    assert refused("project/pretrain.yml").endswith("did you mean ./project/pretrain.yaml?")
    assert refused("project").endswith("is a folder; name a file in it; there are classify.yaml, pretrain.yaml")


def test_a_path_in_the_project_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        load_config(Path("configs/demo/pretrain.yaml"))
    assert str(refusal.value).endswith(f"did you mean {display_path(ROOT / 'configs/demo/pretrain.yaml')}?")


def test_a_file_of_other_contents_is_no_configuration(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match="is not a text file; expected a configuration in YAML or JSON"):
        load_config(tmp_path / "photo.png")
