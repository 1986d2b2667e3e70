"""What differs between the configurations of two runs."""

from tfinpaint.config.diff import as_values, differences
from tfinpaint.config.schema import Config


def test_keys_that_older_records_lack_count_as_what_older_versions_did():
    record = as_values(Config())
    del record["recompute"], record["data"]["jpeg_scaling"], record["model"]["stem"]
    assert differences(record, Config()) == {}
    changed = Config.model_validate({"recompute": True, "data": {"jpeg_scaling": False}})
    assert differences(record, changed) == {"recompute": (False, True), "data.jpeg_scaling": (True, False)}


def test_new_keys_of_the_discriminators_optimizer_count_as_well():
    for values in ({}, {"loss": {"function": "L1", "adversarial": {}}}):
        config = Config.model_validate(values)
        record = as_values(config)
        for section in (record, record["loss"]["adversarial"] or {}):
            if section:
                del section["optimizer"]["decay_kernels_only"], section["optimizer"]["layer_decay"]
        del record["model"]["decoder"]
        assert differences(record, config) == {}


def test_a_new_setting_of_a_transform_counts_as_what_older_versions_did():
    steps = [{"resize": [64, 64]}, {"grid": {"size": 8, "ratio": 0.5}}]
    config = Config.model_validate({"data": {"transforms": steps, "views": 2}})
    record = as_values(config)
    del record["data"]["transforms"][1]["grid"]["complementary"]
    assert differences(record, config) == {}
    steps[1]["grid"]["complementary"] = True
    changed = Config.model_validate({"data": {"transforms": steps, "views": 2}})
    assert list(differences(record, changed)) == ["data.transforms"]
    record["data"]["transforms"] = ["damaged", None]
    assert list(differences(record, config)) == ["data.transforms"]


def test_everything_differs_from_a_record_that_is_lost():
    assert differences({}, Config())["recompute"] == (None, False)
