"""The JSON Schema for editors: it has every key, and accepts and refuses what it should."""

import json
from collections.abc import Iterator

import pytest
from commandline import succeed
from conftest import ROOT

from tfinpaint.config.json_schema import json_schema
from tfinpaint.config.keys import list_keys
from tfinpaint.config.loader import read_values

CONFIGURATIONS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict:
    return json_schema()


def sections(schema: dict) -> Iterator[dict]:
    yield schema
    yield from schema["$defs"].values()


def problems(schema: dict, values: dict) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which validates, is not installed")
    found = jsonschema.Draft202012Validator(schema).iter_errors(values)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def test_every_key_has_a_description_and_no_other_key_is_allowed(schema):
    names = {name for section in sections(schema) for name in section["properties"]}
    assert {key.name.rpartition(".")[2] for key in list_keys()} <= names
    assert all(section["additionalProperties"] is False for section in sections(schema))
    assert all(key["description"] for section in sections(schema) for key in section["properties"].values())
    assert schema["properties"]["num_epochs"] == {
        "type": "integer", "minimum": 1, "default": 1,
        "description": "Epochs of the whole run, including those before a resume.",
    }  # fmt: skip
    assert schema["$defs"]["Transform"]["properties"]["rotate"]["type"] == "number"


def test_the_command_prints_it(schema):
    assert json.loads(succeed("config", "schema")) == schema


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_recipes_are_valid(schema, path):
    assert problems(schema, read_values(path)) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"num_epoch": 3}, ": Additional properties are not allowed ('num_epoch' was unexpected)"),
        ({"data": {"batchsize": 3}}, "data: Additional properties are not allowed ('batchsize' was unexpected)"),
        ({"data": {"batch_size": 0}}, "data.batch_size: 0 is less than the minimum of 1"),
        ({"data": {"batch_size": "8"}}, "data.batch_size: '8' is not of type 'integer'"),
        ({"data": {"transforms": [{}]}}, "data.transforms.0: {} should be non-empty"),
        ({"data": {"transforms": [{"rotate": None}]}}, "data.transforms.0.rotate: None is not of type 'number'"),
        ({"data": {"transforms": [{"rotate": 1, "random_zoom": 0.1}]}}, "data.transforms.0: {'rotate': 1, 'random_zoom': 0.1} has too many properties"),
        ({"optimizer": {"type": "Adamm"}}, "optimizer.type: 'Adamm' is not one of "),
    ],
)  # fmt: skip
def test_wrong_keys_and_values_are_refused(schema, values, problem):
    (found,) = problems(schema, values)
    assert found.startswith(problem)
