"""Small files are read at once, and large ones are not."""

import io
import os
import stat
from types import SimpleNamespace

from tfinpaint.data.images.streams import SMALL_BYTES, open_stream


def test_only_a_small_file_is_read_at_once(tmp_path):
    path = tmp_path / "x"
    for size, kind in ((0, io.BytesIO), (SMALL_BYTES, io.BytesIO), (SMALL_BYTES + 1, io.BufferedReader)):
        path.write_bytes(bytes(size - 1) + b"!" if size else b"")
        with open_stream(path) as stream:
            assert type(stream) is kind
            assert stream.tell() == 0
            assert stream.seek(0, os.SEEK_END) == size
            stream.seek(0)
            assert stream.read() == path.read_bytes()


def test_a_file_that_ends_before_its_size_is_read_piece_by_piece(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"12345")
    monkeypatch.setattr("os.fstat", lambda _: SimpleNamespace(st_mode=stat.S_IFREG, st_size=9))
    with open_stream(tmp_path / "x") as stream:
        assert type(stream) is io.BufferedReader
        assert stream.read() == b"12345"
