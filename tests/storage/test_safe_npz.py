"""Exactly the arrays that are expected, or one line; and never more memory than they take."""

import copy
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfinpaint.errors import UserError
from tfinpaint.storage import safe_npz
from tfinpaint.storage.safe_npz import read_npz, read_whole_npz, write_npz

STATE = {"0": np.int64(7), "1": np.arange(6, dtype=np.float32).reshape(2, 3), "2": np.zeros((0,), np.float32)}
EXPECTED = {"0": ((), "int64"), "1": ((2, 3), np.float32), "2": ((0,), "float32")}


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("canary"),)


def member(path, array, name="1", **options):
    """The good file, with another array in place of one."""
    np.savez(path, **{key: value for key, value in STATE.items() if key != name})
    header = safe_npz.npy.header_data_from_array_1_0(array) | options
    with zipfile.ZipFile(path, "a") as archive, archive.open(f"{name}.npy", "w") as file:
        safe_npz.npy.write_array_header_1_0(file, header)
        file.write(array.tobytes())
    return path


def test_what_savez_has_written_comes_back(tmp_path):
    np.savez(tmp_path / "s.npz", **STATE)
    found = read_npz(tmp_path / "s.npz", EXPECTED)
    assert list(found) == ["0", "1", "2"]
    for name, array in STATE.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


def test_write_is_what_savez_writes_and_never_a_pickle(tmp_path):
    write_npz(tmp_path / "ours.npz", STATE)
    np.savez(tmp_path / "numpy.npz", **STATE)
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()
    with (tmp_path / "open.npz").open("wb") as file:
        write_npz(file, STATE)
    assert (tmp_path / "open.npz").read_bytes() == (tmp_path / "ours.npz").read_bytes()
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_npz(tmp_path / "objects.npz", {"0": np.array([Payload()])})


def test_the_array_that_older_numpy_adds_is_no_array_of_the_file(tmp_path):
    write_npz(tmp_path / "s.npz", {**STATE, "allow_pickle": np.array(False)})  # as numpy.savez before 2.2
    for found in (read_npz(tmp_path / "s.npz", EXPECTED), read_whole_npz(tmp_path / "s.npz")):
        assert list(found) == ["0", "1", "2"]
    write_npz(tmp_path / "s.npz", {"0": STATE["0"], "1": STATE["1"], "allow_pickle": np.array(False)})
    assert "holds 2 arrays, expected 3; they differ in '2'" in refused(tmp_path / "s.npz")


def refused(path) -> str:
    with pytest.raises(UserError) as raised:
        read_npz(path, EXPECTED)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_other_arrays_are_refused(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, **{**STATE, "3": np.ones(1)})
    assert "holds 4 arrays, expected 3; they differ in '3'" in refused(path)
    np.savez(path, **{"0": STATE["0"], "1": STATE["1"]})
    assert "holds 2 arrays, expected 3; they differ in '2'" in refused(path)
    np.savez(path, **{**STATE, "1": np.ones((3, 2), np.float32)})
    assert "1 is float32 (3, 2), expected float32 (2, 3)" in refused(path)
    np.savez(path, **{**STATE, "1": np.ones((2, 3))})
    assert "1 is float64 (2, 3), expected float32 (2, 3)" in refused(path)
    np.savez_compressed(path, **STATE)
    assert ".npy is compressed" in refused(path)
    np.savez(path, **{**STATE, "1": np.array([Payload()] * 6).reshape(2, 3)})
    assert "Object arrays cannot be loaded" in refused(path)
    assert not Path("canary").exists()
    np.savez(path, **STATE)
    np.save(path.with_name("one.npy"), STATE["1"])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("1.npy", b"")
    assert "damaged or not an .npz file (" in refused(path)
    write_npz(path, STATE)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.write(path.with_name("one.npy"), "1.npy")
    assert "damaged or not an .npz file (two arrays of one name)" in refused(path)


def test_a_header_that_lies_takes_no_memory(tmp_path):
    path = member(tmp_path / "s.npz", STATE["1"], shape=(2**20, 2**16))
    tracemalloc.start()
    assert "'1.npy' claims float32 (1048576, 65536) in 152 bytes" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    (tmp_path / "l.npz").write_bytes(bytes(2**20))
    assert "1048576 bytes, but its 3 expected arrays take 32 to 16416" in refused(tmp_path / "l.npz")


def test_damaged_files_are_told(tmp_path):
    path = tmp_path / "s.npz"
    assert "there is no such file" in refused(path)
    np.savez(path, **STATE)
    whole = path.read_bytes()
    spoiled = whole.replace(STATE["1"].tobytes(), b"\1" + STATE["1"].tobytes()[1:])
    for contents in (b"", b"PK not a zip", whole[: len(whole) // 2], whole[:-1], spoiled, pickle.dumps(Payload())):
        path.write_bytes(contents)
        assert "damaged or not an .npz file" in refused(path) or " expected arrays take " in refused(path)
    assert not Path("canary").exists()


def test_arrays_that_nobody_expects_are_held_to_the_file(tmp_path):
    path = tmp_path / "s.npz"
    names = np.array(["a", "bcd"])
    np.savez(path, **STATE, names=names)
    found = read_whole_npz(path)
    assert list(found) == ["0", "1", "2", "names"]
    assert found["names"].tolist() == ["a", "bcd"]
    assert np.array_equal(found["1"], STATE["1"])

    def refused_all() -> str:
        tracemalloc.start()
        with pytest.raises(UserError, match=f"^{path}: ") as raised:
            read_whole_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
        return str(raised.value)

    member(path, STATE["1"], shape=(2**20, 2**16))
    assert "'1.npy' claims float32 (1048576, 65536) in 152 bytes" in refused_all()
    member(path, np.array(""), descr="<U0", shape=(2**40,))
    assert "claims <U0 (1099511627776,)" in refused_all()
    np.savez_compressed(path, zeros=np.zeros(10**7))
    assert "zeros.npy is compressed" in refused_all()
    np.savez(path, pickle=np.array([Payload()]))
    assert "Object arrays cannot be loaded" in refused_all()
    np.savez(path, x=np.zeros(1000))
    with zipfile.ZipFile(path, "a") as archive:  # more names of the same bytes
        for number in range(100):
            info = copy.copy(archive.infolist()[0])
            info.filename = f"{number}.npy"
            archive.filelist.append(info)
        archive.comment = b"so that the directory is written"
    assert " bytes in " in refused_all()
    path.unlink()
    assert "there is no such file" in refused_all()
    assert not Path("canary").exists()


@pytest.mark.parametrize("header", [b"(", b"{'descr': [}", b"   x\n y", b"{'shape': (1, 'x')}", b"[[]]", b"\xff"])
def test_headers_that_are_no_headers_are_damage(tmp_path, header):
    path = tmp_path / "s.npz"
    np.savez(path, **{key: value for key, value in STATE.items() if key != "1"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("1.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + STATE["1"].tobytes())
    assert "damaged or not an .npz file" in refused(path)
