"""JSON files that are missing, too large or damaged are read as None."""

import os

from tfinpaint.storage.safe_json import read_json


def test_what_is_no_small_json_file_is_none(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_text('{"a": [1, 2.5]}')
    assert read_json(path) == {"a": [1, 2.5]}
    assert read_json(path, most_bytes=10) is None
    for wrong in ("{", "[" * 100_000, '"\\ud8', "\xff"):
        path.write_bytes(wrong.encode("latin-1"))
        assert read_json(path) is None
    os.mkfifo(tmp_path / "pipe")  # whose reading would never end
    assert read_json(tmp_path / "pipe") is None
    assert read_json(tmp_path) is None
