"""Folders of records that strangers could send to `prepare --verify`."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from good_inputs import Arguments, Good, Make
from hostile_code import Payload


def records(change: Callable[[Good, Path, dict[str, Any]], None]) -> Make:
    def make(good: Good, folder: Path, out: Path) -> Arguments:
        shutil.copytree(good.records, folder / "packed")
        index = folder / "packed" / "records.json"
        contents = json.loads(index.read_text())
        change(good, folder / "packed", contents)
        index.write_text(json.dumps(contents))
        return ["--verify", folder / "packed"]

    return make


def other_array(name: str, array: bytes) -> Make:
    """Another file in place of one of the index, with the right checksum."""

    def change(good: Good, folder: Path, contents: dict[str, Any]) -> None:
        import hashlib

        (folder / name).write_bytes(array)
        contents["arrays"][name] = {"bytes": len(array), "sha256": hashlib.sha256(array).hexdigest()}

    return records(change)


def npy(array: np.ndarray, **changes: Any) -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, np.lib.format.header_data_from_array_1_0(array) | changes)
    return written.getvalue() + array.tobytes()


def leading_out(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    contents["shards"][0]["name"] = "../../../../../etc/passwd"


def other_count(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    contents["images"] = contents["shards"][0]["images"] = 2**31


def pickled_names(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    import hashlib

    written = io.BytesIO()
    np.save(written, np.array([Payload(good.canaries / "names")], object), allow_pickle=True)
    (folder / "names.npy").write_bytes(written.getvalue())
    digest = hashlib.sha256(written.getvalue()).hexdigest()
    contents["arrays"]["names.npy"] = {"bytes": len(written.getvalue()), "sha256": digest}


def spoilt(good: Good, folder: Path, contents: dict[str, Any]) -> None:
    (folder / contents["shards"][0]["name"]).write_bytes(b"x")


RECORDS = {  # with the file that is to be named
    "shard elsewhere": (records(leading_out), "packed/records.json"),
    "more images than there are": (records(other_count), "packed/records.json"),
    "names that are a pickle": (records(pickled_names), "packed/names.npy"),
    "names that claim terabytes": (
        other_array("names.npy", npy(np.zeros(8, np.uint8), shape=(2**42,))),
        "packed/names.npy",
    ),
    "places that are no places": (other_array("places.npy", npy(np.zeros(8, "<u8"))), "packed/places.npy"),
    "starts beyond the names": (
        other_array("name_starts.npy", npy(np.array([0, 2**60], "<u8"))),
        "packed/records.json",
    ),
    "spoilt shard": (records(spoilt), "packed/images-00000-of-00001.tfrecord"),
}
