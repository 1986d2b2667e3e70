"""HDF5 files on a disk that fills, or under a limit, while they are written."""

import errno
import os
import resource
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from tfinpaint.storage.hdf5_output import HDF5Output, new_hdf5


def write_arrays(path, count=400):
    """Enough groups and arrays that HDF5 reads some of its own metadata again while it writes."""
    with new_hdf5(path) as output, h5py.File(output, "w") as file:
        for number in range(count):
            file[f"group {number % 40}/array {number}"] = np.full(500, number, np.float32)


def test_what_is_written_is_what_h5py_reads(tmp_path):
    write_arrays(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert sum(len(group) for group in file.values()) == 400
        assert (file["group 7/array 47"][()] == 47).all()
    size = (tmp_path / "x.h5").stat().st_size
    with new_hdf5(tmp_path / "x.h5") as output, h5py.File(output, "w") as file:
        file["one"] = np.arange(3)
    assert (tmp_path / "x.h5").stat().st_size < size  # what was there before is gone


def everything(path):
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
        values = {name: file[name][()] for name in names if isinstance(file[name], h5py.Dataset)}
        return {name: (dict(file[name].attrs), values[name].tobytes() if name in values else None) for name in names}


def test_keras_writes_what_it_writes_to_a_path(tmp_path):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    with new_hdf5(tmp_path / "mine.weights.h5") as output:
        model.save_weights(output)
    model.save_weights(tmp_path / "theirs.weights.h5")
    assert everything(tmp_path / "mine.weights.h5") == everything(tmp_path / "theirs.weights.h5")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("good", [0, 1, 7, 100, 500, 1000])
def test_wherever_writing_fails_hdf5_closes_the_file_and_the_error_is_raised(tmp_path, monkeypatch, code, good):
    calls, write = [], os.pwrite

    def full(*arguments):
        calls.append(1)
        if len(calls) > good:
            raise OSError(code, os.strerror(code))
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"x\.h5") as raised:
        write_arrays(tmp_path / "x.h5")
    assert raised.value.errno == code
    assert len(calls) == good + 1  # nothing is tried after the first error


def test_what_could_not_be_written_can_be_read_until_the_end(tmp_path, monkeypatch):
    output = HDF5Output(tmp_path / "x.h5")
    output.write(b"0123456789")
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    output.seek(5)
    output.write(b"abcdefgh")
    output.seek(7)
    output.write(b"XY")
    output.seek(3)
    found = bytearray(12)
    assert output.readinto(found) == 12
    assert found == b"34abXYefgh\0\0"
    assert (output.tell(), output.seek(0, os.SEEK_END)) == (15, 13)
    with pytest.raises(OSError, match="full"):
        output.check()


@pytest.mark.parametrize("limit", [1000, 100_000, 500_000])
def test_a_limit_for_the_size_of_files_ends_nothing_but_the_file(tmp_path, limit):
    """In a process of its own, to its end: HDF5 was seen to crash there."""
    code = (
        "import sys; from pathlib import Path; import h5py; from tfinpaint.storage.hdf5_output import new_hdf5\n"
        "try:\n"
        "    with new_hdf5(Path(sys.argv[1])) as output, h5py.File(output, 'w') as file:\n"
        "        for number in range(400): file[f'group {number % 40}/array {number}'] = [float(number)] * 500\n"
        "except OSError as error: print(error.strerror)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.h5")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        # Without a measurement of coverage, whose file would reach the limit too.
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "File too large\n", "")
