"""Images in records: the same listings and batches as from files, damage and hostile indices told, in bounded files."""

import contextlib
import gc
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_images

from tfinpaint.config.schema import Config
from tfinpaint.data import pipeline
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.ingest.pack import pack, verify
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.check import check_images
from tfinpaint.data.listing.names import Names
from tfinpaint.data.listing.pairing import pair_by_name
from tfinpaint.data.records import plan, reader
from tfinpaint.data.tasks import classification_task, inpainting_task
from tfinpaint.errors import UserError
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.paths import display_path

CONFIG = Config.model_validate(
    {"data": {"transforms": [{"resize": [16, 16]}, {"random_patches": {"number": 2, "size": 4}}]}}
)
SHARD_BYTES = 5_000  # three or four of the images here


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """`files/`, class folders of images, and `records/`, the same in several shards."""
    folder = tmp_path_factory.mktemp("made")
    write_images(folder / "files", {"b": 7, "a": 9, "a-c": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SHARD_BYTES", SHARD_BYTES)
        report = pack(folder / "files", folder / "records")
    assert report.lines() == [f"{display_path(folder / 'records')}: 20 images, 0 unreadable"]
    return folder


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy of the records, to be damaged."""
    return Path(shutil.copytree(made / "records", tmp_path / "records"))


def flip(path: Path, place: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[place] ^= 1
    path.write_bytes(contents)


def test_any_reader_of_tfrecord_finds_the_files_as_they_were(made):
    shards = sorted((made / "records").glob("*.tfrecord"))
    assert len(shards) == 6
    assert [shard.name for shard in shards] == [f"images-{i:05}-of-00006.tfrecord" for i in range(6)]
    keys = {"encoded": tf.string, "filename": tf.string, "class/label": tf.int64, "class/text": tf.string}
    features = {f"image/{key}": tf.io.FixedLenFeature([], kind) for key, kind in keys.items()}
    found = [tf.io.parse_single_example(one, features) for one in tf.data.TFRecordDataset([str(s) for s in shards])]
    names = [one["image/filename"].numpy().decode() for one in found]
    assert names == sorted(names)
    assert len(names) == 20
    for name, one in zip(names, found, strict=True):
        assert one["image/encoded"].numpy() == (made / "files" / name).read_bytes()
        text = one["image/class/text"].numpy().decode()
        assert (text, int(one["image/class/label"])) == (name.split("/")[0], ["a", "a-c", "b"].index(text))
    assert json.loads((made / "records" / "records.json").read_text())["classes"] == ["a", "a-c", "b"]


def test_shards_hold_equally_many_bytes(made):
    for shard in (made / "records").glob("*.tfrecord"):
        assert SHARD_BYTES / 2 < shard.stat().st_size < SHARD_BYTES * 1.5


def test_listings_equal_those_of_the_folder(made):
    for lister in (sources.list_images, sources.list_class_folders):
        files, packed = lister(made / "files"), lister(made / "records")
        assert packed.paths == files.paths
        assert np.array_equal(packed.labels, files.labels)
        assert (packed.classes, len(packed.excluded)) == (files.classes, 0)
    half, packed_half = (sources.take_fraction(listing, 0.5, seed=1) for listing in (files, packed))
    assert packed_half.paths == half.paths
    assert len(half) == 10
    for index in range(10):
        assert packed_half.open(index).read() == Path(half.open(index)).read_bytes()
    assert sources.has_class_folders(made / "records")
    with pytest.raises(UserError, match="classes a, a-c are not among the training classes: b"):
        sources.list_class_folders(made / "records", classes=("b",))


def test_images_without_classes_and_tags(tmp_path):
    write_images(tmp_path / "x" / "one" / "training", {"cat": 2, "dog": 1})
    write_images(tmp_path / "flat", {".": 3})
    pack(tmp_path / "x", tmp_path / "r")
    listing = sources.list_class_folders(tmp_path / "r", tag="training")
    assert (listing.classes, listing.labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    pack(tmp_path / "flat", tmp_path / "rf")
    assert sources.list_images(tmp_path / "rf").paths == ["000.png", "001.png", "002.png"]
    assert not sources.has_class_folders(tmp_path / "rf")
    (record,) = tf.data.TFRecordDataset(str(tmp_path / "rf" / "images-00000-of-00001.tfrecord")).take(1)
    assert sorted(tf.train.Example.FromString(record.numpy()).features.feature) == ["image/encoded", "image/filename"]


def test_partners_are_found_in_records_and_from_records(made):
    for inputs in ("files", "records"):
        for targets in ("files", "records"):
            pairs = pair_by_name(sources.list_images(made / inputs).select([7, 17]), made / targets)
            assert pairs.paths == ["a/003.png", "b/004.png"]
            first = pairs.open(0)
            contents = first.read() if targets == "records" else Path(first).read_bytes()
            assert contents == (made / "files" / "a" / "003.png").read_bytes()


@pytest.mark.parametrize("preload", [False, pytest.param(True, marks=pytest.mark.stress)])
def test_batches_are_those_of_the_folder_to_the_byte(made, preload):
    task = inpainting_task(CONFIG, separate=False, augment=True)

    def batches(folder: str, rank: int) -> list[dict[str, np.ndarray]]:
        images = Images.open(sources.list_class_folders(made / folder), RankShare(rank, 2), task.images, preload)
        training = pipeline.train_batches(images, batch_size=8, seed=3, first_step=1, prepare=task.prepare).take(4)
        held_out = pipeline.evaluation_batches(images, batch_size=8, seed=3, prepare=task.prepare)
        return [{key: value.numpy() for key, value in batch.items()} for batch in [*training, *held_out]]

    for rank in range(2):
        files, packed = batches("files", rank), batches("records", rank)
        assert len(files) == len(packed) == 7
        for one, other in zip(files, packed, strict=True):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_flipped_byte_is_told_with_its_place_and_what_to_do(copy):
    shard = copy / "images-00002-of-00006.tfrecord"
    listing = sources.list_images(copy)
    first = listing.records._ends[1]
    flip(shard, int(listing.records._places[first + 1]["begin"]) + 5)
    listing.open(first)
    with pytest.raises(
        UnreadableImageError, match=r"the shard is damaged here \(CRC-32\); list all damage with .* --verify"
    ):
        listing.open(first + 1)
    assert listing.place(first + 1) == f"{shard} record 1 ({listing.paths[first + 1]})"
    reading = classification_task(CONFIG, labels=False, augment=False).images.decoding
    bad = check_images(listing, range(20), reading).bad
    assert list(bad) == [first + 1]


def test_a_shard_that_was_cut_or_is_gone_is_told_at_the_start_and_later(copy):
    listing = sources.list_images(copy)
    shard = copy / "images-00005-of-00006.tfrecord"
    os.truncate(shard, shard.stat().st_size - 40)
    with pytest.raises(
        UserError, match=r"images-00005-of-00006.tfrecord: has \d+ bytes instead of \d+; list all damage"
    ):
        sources.list_images(copy)
    with pytest.raises(UnreadableImageError, match="the shard is truncated"):
        listing.open(19)
    shard.unlink()
    listing = sources.Listing(copy, listing.paths, listing.labels, (), listing.excluded, reader.Records(copy, reader._read_header(copy), listing.paths, listing.records._places))  # fmt: skip
    with pytest.raises(UnreadableImageError, match="the shard cannot be read: No such file"):
        listing.open(19)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        sources.list_images(copy)


def test_damage_anywhere_is_found_by_verifying(made, copy, tmp_path):
    size = sum(path.stat().st_size for path in copy.glob("*.tfrecord"))
    assert verify(copy) == [f"{copy}: 20 images, {size} bytes, all intact"]
    for path in sorted(made.joinpath("records").iterdir()):
        for place in (0, path.stat().st_size // 2, path.stat().st_size - 1):
            if path.name != "records.json":
                flip(copy / path.name, place)
                with pytest.raises(UserError, match=rf"{path.name}: is damaged \(SHA"):
                    verify(copy)
                flip(copy / path.name, place)
    flip(copy / "images-00001-of-00006.tfrecord", 7)
    flip(copy / "images-00004-of-00006.tfrecord", 7)
    with pytest.raises(UserError, match=r"(?s)00001-of.*00004-of"):
        verify(copy)
    with pytest.raises(UserError, match=r"no records there, nor in training/ or testing/; expected records\.json"):
        verify(tmp_path)


def forge(folder: Path, change) -> None:
    """Rewrite the index with checksums that fit, as somebody would who means harm."""
    index = json.loads((folder / "records.json").read_text())
    arrays = {name: np.load(folder / name) for name in index["arrays"]}
    change(index, arrays)
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=True)
        contents = (folder / name).read_bytes()
        index["arrays"][name] = {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
    (folder / "records.json").write_text(json.dumps(index))


def rename(arrays, place, name):
    names = list(Names(arrays["names.npy"], arrays["name_starts.npy"]))
    names[place] = name
    arrays["names.npy"], arrays["name_starts.npy"] = Names.of(names).text, Names.of(names).starts


def set_place(arrays, field, value):
    arrays["places.npy"][field][4] = value


HOSTILE = {
    "a place beyond the file": (lambda index, arrays: set_place(arrays, "begin", 10**6), "beyond the end of images-00001"),
    "a place that overflows": (lambda index, arrays: set_place(arrays, "begin", 2**64 - 1), "beyond the end of images-00001"),
    "a size beyond the file": (lambda index, arrays: set_place(arrays, "bytes", 10**6), "beyond the end of images-00001"),
    "a huge size": (lambda index, arrays: set_place(arrays, "bytes", 2**32 - 1), "at most 268435456"),
    "a shard elsewhere": (lambda index, arrays: index["shards"][0].update(name="../x.tfrecord"), r"shards\.0\.name"),
    "an absolute shard": (lambda index, arrays: index["shards"][0].update(name="/etc/passwd"), r"shards\.0\.name"),
    "a negative count": (lambda index, arrays: index["shards"][0].update(images=-1), r"shards\.0\.images"),
    "a shard of too many": (lambda index, arrays: index["shards"][0].update(images=9), "20 images, 2[0-9] in shards"),
    "more images than there are": (lambda index, arrays: index.update(images=10**9), "1000000000 images, 20 in shards"),
    "no version": (lambda index, arrays: index.update(version=0), r"version 1 \(version: "),
    "newer version": (lambda index, arrays: index.update(version=2, more=1), r"was written by a newer tfinpaint \(version 2 of the format; this one reads 1\); update tfinpaint"),
    "another key": (lambda index, arrays: index.update(code="x"), "code: Extra inputs"),
    "a name that leads out": (lambda index, arrays: rename(arrays, 3, "a/../../../x.png"), "points outside the folder"),
    "an absolute name": (lambda index, arrays: rename(arrays, 3, "/x.png"), "absolute path"),
    "fewer names": (lambda index, arrays: arrays.update({"name_starts.npy": arrays["name_starts.npy"][:-1]}), "do not fit"),
    "objects for names": (lambda index, arrays: arrays.update({"names.npy": np.array([{}], object)}), "names.npy: cannot be read"),
    "numbers for places": (lambda index, arrays: arrays.update({"places.npy": np.zeros(20)}), "contains float64"),
    "places of two dimensions": (lambda index, arrays: arrays.update({"places.npy": arrays["places.npy"][None]}), r"contains .* \(1, 20\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_indices_are_refused(copy, case):
    change, message = HOSTILE[case]
    forge(copy, change)
    with pytest.raises(UserError, match=message):
        sources.list_images(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": 3}', "\0\0"])
def test_a_damaged_records_json_is_told_and_so_is_that_of_others(copy, text):
    (copy / "records.json").write_text(text)
    with pytest.raises(UserError, match=r"not an index of records, version 1 .*; pack the images again or, if this"):
        sources.list_images(copy)


def test_a_huge_records_json_is_not_read(copy, monkeypatch):
    monkeypatch.setattr(reader, "MAX_INDEX_BYTES", 100)
    with pytest.raises(UserError, match="more than 100: not an index of records"):
        sources.list_images(copy)


def open_shards(folder: Path) -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # another thread has just closed it
            count += str(Path(f"/proc/self/fd/{name}").readlink()).startswith(f"{folder}/images-")
    return count


def test_open_files_are_bounded_and_closed(made, copy, monkeypatch):
    monkeypatch.setattr(reader, "OPEN_SHARDS", 2)
    found = reader.open_records(copy)
    expected = [(made / "files" / name).read_bytes() for name in found.names]
    rows = [row % 20 for row in range(0, 2000, 7)]
    opened = []
    for row, contents in zip(rows, parallel_map(found.read, rows), strict=True):
        assert contents == expected[row]
        opened.append(open_shards(copy))
    assert 2 <= max(opened) <= 2 + len(os.sched_getaffinity(0))  # one more for each thread that still reads
    assert open_shards(copy) == 2
    del found
    gc.collect()
    assert open_shards(copy) == 0


def test_an_index_costs_its_names_and_24_bytes_an_image(made):
    found = sources.list_images(made / "records")
    arrays = (found.paths.starts, found.records._places)
    assert sum(array.nbytes for array in arrays) == 20 * 24 + 8
    assert found.paths.text.nbytes == sum(len(path) for path in found.paths)
    assert all(isinstance(array.base, np.memmap) for array in (*arrays, found.paths.text))
