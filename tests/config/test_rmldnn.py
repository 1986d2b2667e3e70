"""rmldnn's configurations: every documented key is supported or refused by name; its public files run or are refused."""

import json
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, SHARED

from tfinpaint.cli.options import load_checked
from tfinpaint.config import rmldnn
from tfinpaint.config.loader import _Loader, dump_config, load_config
from tfinpaint.config.schema import ConfigError
from tfinpaint.models.keras_json.parse import input_size, read_network

ZIP = SHARED / "data" / "seed" / "rmldnn_configurations_and_networks.zip"
TABLE = yaml.load((Path(__file__).parents[1] / "golden" / "seed_keys.yaml").read_text(), _Loader)  # noqa: S506 (a SafeLoader)
DOCUMENTED = (ROOT / "docs" / "rmldnn.md").read_text()


def names(value: object) -> set[str]:
    """Every key inside a value."""
    if isinstance(value, dict):
        return set(value) | {name for inner in value.values() for name in names(inner)}
    return {name for inner in value for name in names(inner)} if isinstance(value, list) else set()


@pytest.mark.parametrize(("place", "value", "expected"), TABLE, ids=lambda item: json.dumps(item)[:60])
def test_a_key_is_supported_or_refused_by_name(tmp_path, place, value, expected):
    section: dict = {}
    network: dict = {"neural_network": section}
    *parents, last = place.split(".")
    for parent in parents:
        section = section.setdefault(parent, {})
    section[last] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(network))
    if expected == "ok":
        again = tmp_path / "again.yaml"
        again.write_text(dump_config(load_config(path)))
        assert load_config(again) == load_config(path)
    else:
        with pytest.raises(ConfigError, match=re.escape(expected)) as refusal:
            load_config(path)
        assert len(str(refusal.value).splitlines()) == 1


def test_the_table_and_the_docs_hold_every_key():
    inner = {name for place, value, _ in TABLE if not place.startswith("layers") for name in names(value)}
    keys = {place.rpartition(".")[2] for place, *_ in TABLE} | inner - {"sizes"}
    assert {key for key in keys if f"`{key}`" not in DOCUMENTED} == set()
    refused = {place.rpartition(".")[2] for place, *_ in TABLE} | inner
    assert set(rmldnn.KEYS) <= refused
    values = {(place, value) for place, value, _ in TABLE if isinstance(value, str)}
    values |= {
        (f"{place}.{key}", v)
        for place, inner, _ in TABLE
        if isinstance(inner, dict)
        for key, v in inner.items()
        if isinstance(v, str)
    }
    tried = {(place, value.lower()) for place, value in values}
    assert {(place, value) for place, value in rmldnn.VALUES if value != "pde" and place == "data.type"} <= tried
    assert {v for v in rmldnn.VALUES if not v[0].startswith("data")} <= tried


REFUSED = {
    "smoke_tests/config_rmltf_test.json": r"data.type: a data loader of rmldnn that is not supported: arrays are not",
    "tutorials/neural_Poisson3D_PDE_solver/config_poisson3d_pde.json": r"arrays are not read, only folders of images",
    "tutorials/neural_Poisson3D_PDE_solver/config_poisson3d_pde_inference.json": r"arrays are not read",
    "tutorials/seismic_facies_classification/config_dnn_seismic3d.json": r"arrays are not read",
    "tutorials/seismic_facies_classification/config_dnn_seismic3d_inference.json": r"arrays are not read",
}


def test_every_configuration_runs_or_is_refused_for_a_true_reason_in_one_line(tmp_path):
    if not ZIP.exists():
        pytest.skip(f"{ZIP.name} is not beside the project")
    with zipfile.ZipFile(ZIP) as file:
        file.extractall(tmp_path)
    tried = set()
    for path in sorted(tmp_path.rglob("*config*.json")):
        name = str(path.relative_to(tmp_path))
        section = json.loads(path.read_text())["neural_network"]
        for key, place in section["data"].items():  # what the tutorials tell to download, or to train first
            if key.endswith("_path") and "output" not in key:
                (path.parent / place).mkdir(parents=True, exist_ok=True)
        if "load" in section.get("checkpoints", {}):
            (path.parent / section["checkpoints"]["load"]).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / section["checkpoints"]["load"]).touch()
        task = "classify" if section["data"].get("type") is None else "pretrain"
        if name in REFUSED:
            with pytest.raises(ConfigError, match=REFUSED[name]) as refusal:
                load_checked(path, [], task, 1)
            assert "\n" not in str(refusal.value)
        else:
            config = load_checked(path, [], task, 1)
            assert config.output_format == "rmldnn"
        tried.add(name)
    assert (len(tried), set(REFUSED) - tried) == (19, set())


def write_json(path: Path, **section: object) -> Path:
    path.write_text(json.dumps({"neural_network": section}))
    return path


def test_what_an_rmldnn_file_says_beyond_the_schema(tmp_path):
    data = {"test_tag": "testing", "training_tag": "training"}
    config = load_config(write_json(tmp_path / "c.json", debug=False, debug_interval=5, data=data))
    assert (config.data.testing_tag, config.data.training_tag, config.output_format) == (
        "testing",
        "training",
        "rmldnn",
    )
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again) == config
    assert load_config(write_json(tmp_path / "d.json"), ["output_format=tfinpaint"]).output_format == "tfinpaint"
    (tmp_path / "own.json").write_text('{"seed": 1}')
    assert load_config(tmp_path / "own.json").output_format == "tfinpaint"
    with pytest.raises(ConfigError, match=r"debug is a key of rmldnn .*`false` is accepted"):
        load_config(write_json(tmp_path / "e.json", debug=True))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], [{"resize": [16, 12]}]),
        ([{"random_horizontal_flip": 0.5}], [{"resize": [16, 12]}, {"random_horizontal_flip": 0.5}]),
        (
            [{"jitter_crop": 0.1}, {"grayscale": True}],
            [{"jitter_crop": 0.1}, {"resize": [16, 12]}, {"grayscale": True}],
        ),
        ([{"resize": [8, 8]}], [{"resize": [8, 8]}]),
    ],
)
def test_without_a_size_images_take_that_of_the_networks_input(tmp_path, steps, expected):
    (tmp_path / "images" / "a").mkdir(parents=True)
    listed = [
        {"class_name": "Conv2D", "config": {"batch_input_shape": [None, 12, 16, 3], "filters": 1, "kernel_size": 1}}
    ]
    data = {"input_path": "images", "target_type": "labels", "transforms": steps}
    path = write_json(tmp_path / "c.json", layers=listed, data=data)
    config = load_checked(path, [], "classify", 1)
    assert [step.model_dump() for step in config.data.transforms] == expected
    listed[0]["config"]["batch_input_shape"] = [None, None, 16, 3]
    assert input_size(read_network(listed)) is None
    path = write_json(tmp_path / "c.json", layers=listed, data={**data, "transforms": []})
    with pytest.raises(ConfigError, match="must produce images of one size: add a resize"):
        load_checked(path, [], "classify", 1)
