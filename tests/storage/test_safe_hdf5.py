"""Only plain arrays of numbers pass, and each thing that is refused is refused by its own name."""

import os
import struct

import h5py
import numpy as np
import pytest

from tfinpaint.errors import UserError
from tfinpaint.storage import safe_hdf5
from tfinpaint.storage.safe_hdf5 import open_hdf5

ONES = np.ones((4, 8), np.float32)


def write(path, change=lambda file: None):
    with h5py.File(path, "w") as file:
        file["layers/conv1/vars/0"] = ONES
        file["scalar"] = np.int64(3)
        file["none"] = np.zeros((0, 3), np.float32)
        file.create_dataset("compact", data=ONES, chunks=(2, 8))
        file["layers"].attrs["name"] = "ein Name, länger als 64 KiB" + "x" * 2**17
        file.attrs["layer_names"] = [b"conv1", b"dense_1"]
        change(file)
    return path


def test_plain_arrays_pass(tmp_path):
    with open_hdf5(write(tmp_path / "w.h5")) as checked:
        file = checked.root
        assert checked.array_bytes == {"/layers/conv1/vars/0": 128, "/compact": 128, "/scalar": 8, "/none": 0}
        assert np.array_equal(file["layers/conv1/vars/0"], ONES)
        assert (file["scalar"][()], file["none"].shape) == (3, (0, 3))


def deep(file):
    for _ in range(safe_hdf5.MOST_LEVELS):
        file = file.create_group("g")


def many(file):
    for number in range(safe_hdf5.MOST_OBJECTS):
        file.create_group(str(number))


def attributes(file):
    for number in range(safe_hdf5.MOST_ATTRIBUTES + 1):
        file.attrs[f"a{number}"] = 1


def huge_attribute(file):
    space = h5py.h5s.create_simple((2**22,))
    h5py.h5a.create(file["scalar"].id, b"huge", h5py.h5t.IEEE_F64LE, space)


def virtual(file):
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "secret", (3,))
    file.create_virtual_dataset("x", layout)


REFUSED = {
    "external link": (lambda f: f.__setitem__("x", h5py.ExternalLink("other.h5", "/secret")), "/x is a link"),
    "soft link": (lambda f: f.__setitem__("x", h5py.SoftLink("/scalar")), "/x is a link"),
    "dangling link": (lambda f: f.__setitem__("layers/x", h5py.SoftLink("/nowhere")), "/layers/x is a link"),
    "group in itself": (lambda f: f["layers"].__setitem__("x", f["layers"]), "/layers/x has two names, or contains itself"),
    "two names": (lambda f: f.__setitem__("x", f["layers/conv1/vars/0"]), "has two names"),
    "external storage": (lambda f: f.create_dataset("x", (3,), "f4", external=[("other.h5", 0, 12)]), "/x lies in another file"),
    "virtual": (virtual, "/x lies in another file"),
    "type of its own": (lambda f: f.__setitem__("x", np.dtype("f8")), "/x is a named data type"),
    "text": (lambda f: f.__setitem__("x", "text"), "/x holds object, not numbers"),
    "references": (lambda f: f.create_dataset("x", (1,), h5py.ref_dtype), "/x holds object, not numbers"),
    "records": (lambda f: f.create_dataset("x", (1,), [("a", "f4")]), "not numbers"),
    "opaque": (lambda f: f.create_dataset("x", data=np.void(b"code")), "not numbers"),
    "deflate": (lambda f: f.create_dataset("x", data=ONES, compression="gzip"), "/x is compressed or filtered"),
    "checksum": (lambda f: f.create_dataset("x", data=ONES, fletcher32=True), "/x is compressed or filtered"),
    "never written": (lambda f: f.create_dataset("x", (2**40,), "f4", chunks=(1024,)), "/x claims 4398046511104 bytes"),
    "fill value": (lambda f: f.create_dataset("x", (2**20,), "f4", fillvalue=1), "/x claims 4194304 bytes"),
    "deep": (deep, "more than 32 levels"),
    "attributes": (attributes, "/ has more than 1000 attributes"),
    "huge attribute": (huge_attribute, "the attribute huge of /scalar is larger than 16 MiB"),
    "attribute of references": (lambda f: f.attrs.create("x", f["scalar"].ref, dtype=h5py.ref_dtype), "attribute x of / is neither"),
    "ugly name": (lambda f: f.__setitem__("a\nb", h5py.SoftLink("/")), r"/a\nb is a link"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_weights_do_not_need_is_refused(tmp_path, case):
    change, expected = REFUSED[case]
    write(tmp_path / "other.h5", lambda file: file.__setitem__("secret", np.ones(3, np.float32)))
    libver = {"libver": "latest"} if case in ("attributes", "huge attribute") else {}
    path = tmp_path / "w.h5"
    with h5py.File(path, "w", **libver) as file:
        file["scalar"] = 3
        file["layers/conv1/vars/0"] = ONES
        change(file)
    with pytest.raises(UserError) as raised, open_hdf5(path):
        pass
    assert expected in str(raised.value)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("libver", ["earliest", "v108"])
def test_lists_of_texts_are_measured_whatever_else_the_file_holds(tmp_path, libver):
    """A list of variable length holds places in the file, and 16 bytes of each: what lies there is what counts."""
    path = tmp_path / "w.h5"
    lists = {f"list{n}": [f"block{i}_{'x' * n}" for i in range(n + 2)] for n in (0, 1, 60, 2000)}
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["model_config"] = "x" * 2**17  # one text, which a list could name again and again
        for number in range(3):  # more than fits into an object's first header
            file.create_group(f"g{number}").attrs.update({"name": "länger", **lists})
            file[f"g{number}"].attrs["ä"] = lists["list60"]
        file["g0/x"] = ONES
        file["g0/x"].attrs["few"] = ["a", "b"]
    with open_hdf5(path) as checked:
        for group in checked.root.values():
            assert {name: list(group.attrs[name]) for name in lists} == lists
            assert list(group.attrs["ä"]) == lists["list60"]
    with open_hdf5(tmp_path / "archive.zip", path.read_bytes()) as checked:
        assert list(checked.root["g0/x"].attrs["few"]) == ["a", "b"]


def share(path, name, length):
    """Let all texts of an attribute be its first, whose length nothing else in the file has."""
    contents = path.read_bytes()
    at = contents.index(struct.pack("<I", length))
    with h5py.File(path) as file:
        count = len(file.attrs[name])
    path.write_bytes(contents[:at] + contents[at : at + 16] * count + contents[at + 16 * count :])


def test_texts_that_are_all_the_same_long_one_are_refused(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["names"] = ["x" * 54_321, *["y"] * 2999]
    with open_hdf5(path):
        pass
    share(path, "names", 54_321)
    words = "the attribute names of /, 3000 texts of variable length, claims 162963000 bytes and does not hold them"
    with pytest.raises(UserError, match=words), open_hdf5(path):
        pass


def test_lists_of_texts_where_their_size_cannot_be_told_are_refused(tmp_path):
    """The newest format keeps many or large attributes apart from their object; a user block moves all places."""
    many = {f"list{number}": ["a", "b"] for number in range(20)}
    for name, options in {"dense": {"libver": "latest"}, "block": {"userblock_size": 512}}.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w", **options) as file:
            file.attrs.update(many)
        with pytest.raises(UserError, match="is stored in a way that does not state its size"), open_hdf5(path):
            pass


def test_too_many_objects_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_hdf5, "MOST_OBJECTS", 50)
    with (
        pytest.raises(UserError, match="more than 50 groups and arrays"),
        open_hdf5(write(tmp_path / "w", many)),
    ):
        pass


def test_arrays_that_share_the_same_bytes_count_each(tmp_path):
    """Headers may name the same bytes of the file again and again, and be read again and again."""
    path = write(tmp_path / "w.h5", lambda file: file.create_dataset("y", data=np.ones(2**16, np.float32)))
    with h5py.File(path, "a") as file:
        file.create_dataset("z", data=np.full(2**16, 2, np.float32))
        first, second = (file[name].id.get_offset() for name in "yz")
    contents = path.read_bytes()
    shorter = contents[:second]
    for before, after in ((second, first), (len(contents), second)):  # the address of z's numbers; the end of the file
        shorter = shorter.replace(before.to_bytes(8, "little"), after.to_bytes(8, "little"))
    path.write_bytes(shorter)
    with pytest.raises(UserError, match="/z claims 262144 bytes and does not hold them"), open_hdf5(path):
        pass


def test_what_is_no_hdf5_file_is_an_error_of_the_file(tmp_path):
    os.mkfifo(tmp_path / "fifo.h5")
    (tmp_path / "text.h5").write_text("text")
    (tmp_path / "cut.h5").write_bytes(write(tmp_path / "whole.h5").read_bytes()[:-100])
    for name in ("fifo.h5", "text.h5", "cut.h5", "absent.h5"):
        with pytest.raises(OSError), open_hdf5(tmp_path / name):  # noqa: PT011 (h5py words them)
            pass
