"""The seed tool's documented configuration, key by key: supported, or refused by name, and told in the docs."""

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from tfinpaint.config import rmldnn
from tfinpaint.config.loader import _Loader, dump_config, load_config
from tfinpaint.config.schema import ConfigError

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
