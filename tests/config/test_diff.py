"""What differs between the configurations of two runs."""

from tfinpaint.config.diff import as_values, differences
from tfinpaint.config.schema import Config


def test_keys_that_older_records_lack_count_as_what_older_versions_did():
    record = as_values(Config())
    del record["recompute"], record["data"]["jpeg_scaling"]
    assert differences(record, Config()) == {}
    changed = Config.model_validate({"recompute": True, "data": {"jpeg_scaling": False}})
    assert differences(record, changed) == {"recompute": (False, True), "data.jpeg_scaling": (True, False)}


def test_everything_differs_from_a_record_that_is_lost():
    assert differences({}, Config())["recompute"] == (None, False)
