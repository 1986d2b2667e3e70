"""Pack images into the TFRecord shards that `data.records.reader` reads; finished shards survive an interruption."""

from __future__ import annotations

import io
import json
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import DTypeLike

from tfinpaint.data.images.decode import CHECK_OPTIONS, inspect_image
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.ingest.source import ReadFile
from tfinpaint.data.listing.excluded import multiple_pictures_message
from tfinpaint.data.listing.names import Names
from tfinpaint.data.records import reader
from tfinpaint.data.records.plan import RecordsPlan
from tfinpaint.data.records.reader import ArrayFile, RecordsHeader, ShardFile, sha256_of
from tfinpaint.errors import UserError
from tfinpaint.storage.atomic import atomic_file, write_text
from tfinpaint.storage.mapped_arrays import load_arrays, store_arrays, write_array
from tfinpaint.storage.write_errors import naming_file, os_error_of_message
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.paths import display_path
from tfinpaint.system.progress import log_progress

log = logging.getLogger(__name__)

_BEFORE, _AFTER = 12, 4  # bytes that TFRecord writes around each record: its length and two checksums


@dataclass(frozen=True)
class _FinishedShard:
    """A finished shard.

    Attributes:
        bad: number of each image that is excluded -> reason.
        places: `reader.PLACE` of each of the others.
    """

    shard: ShardFile
    bad: dict[int, str]
    places: np.ndarray


def write_records(folder: Path, progress: Path, plan: RecordsPlan, read: ReadFile) -> list[tuple[str, str]]:
    """Write a folder of records. After an interruption, the finished shards are kept.

    Args:
        folder: the folder of records, which is not in use yet.
        progress: a folder for facts about the finished shards; neither folder may be from another plan.
        read: returns the bytes of an image's source; called from several threads.

    Returns:
        (source, reason) of each image that cannot be read and is excluded.

    Raises:
        UserError: an image has changed since the plan was made, or none can be read.
        OSError: the records cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress.mkdir(parents=True, exist_ok=True)
    classes = plan.classes()
    parts = plan.shard_ranges()
    names = [f"images-{number:05}-of-{len(parts):05}.tfrecord" for number in range(len(parts))]
    shards = {name: shard for name in names if (shard := _load_finished(folder / name, progress / name))}
    if shards:
        log.info(f"{display_path(folder)}: resuming after {len(shards)} of {len(parts)} shards")
    left = [(name, part) for name, part in zip(names, parts, strict=True) if name not in shards]

    multiple: list[int] = []
    images = (image for _, part in left for image in part)
    loaded = parallel_map(lambda image: _load(plan, image, read, multiple), images)
    loaded = log_progress(loaded, sum(len(part) for _, part in left), f"Packing into {folder}")
    for name, part in left:
        shards[name] = _write_shard(folder / name, plan, classes, part, loaded)
        _store_finished(progress / name, shards[name])
    if multiple:
        log.info(multiple_pictures_message(len(multiple), plan.sources[min(multiple)]))
    _write_index(folder, plan, classes, [shards[name] for name in names])
    return [(plan.sources[image], reason) for name in names for image, reason in shards[name].bad.items()]


def _load(plan: RecordsPlan, image: int, read: ReadFile, multiple: list[int]) -> tuple[bytes, str]:
    """Return (contents, reason why they cannot be used or ""); add an image of several pictures to `multiple`."""
    source = plan.sources[image]
    try:
        contents = read(source)
        if not plan.checked and inspect_image(io.BytesIO(contents), CHECK_OPTIONS).has_more:
            multiple.append(image)
    except UnreadableImageError as error:
        return b"", str(error)
    if len(contents) != plan.sizes[image]:
        raise UserError(f"{source}: changed during packing: {len(contents)} bytes instead of {plan.sizes[image]}")
    return contents, ""


def _write_shard(
    path: Path, plan: RecordsPlan, classes: dict[str, int], images: range, loaded: Iterator[tuple[bytes, str]]
) -> _FinishedShard:
    """Write the next of the loaded images into a shard."""
    places, bad, end = [], {}, 0
    try:
        with atomic_file(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for image, (contents, reason) in zip(images, loaded, strict=False):
                if reason:
                    bad[image] = reason
                    continue
                record = _example(contents, plan.names[image], classes)
                # any place in the record where these bytes are found will do
                places.append((end + _BEFORE + record.find(contents), len(contents), zlib.crc32(contents)))
                writer.write(record)
                end += _BEFORE + len(record) + _AFTER
    except tf.errors.OpError as error:
        raise os_error_of_message(error.message, path) from None
    shard = ShardFile(name=path.name, bytes=end, sha256=sha256_of(path), images=len(places))
    return _FinishedShard(shard, bad, np.array(places, reader.PLACE))


def _example(contents: bytes, name: str, classes: dict[str, int]) -> bytes:
    """Return a serialised tf.train.Example with the usual keys for images, the same bytes at every call."""
    values = {"image/encoded": contents, "image/filename": name.encode()}
    features = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()}
    if "/" in name:
        label = name.partition("/")[0]
        number = tf.train.Int64List(value=[classes[label]])
        text = tf.train.BytesList(value=[label.encode()])
        features["image/class/label"] = tf.train.Feature(int64_list=number)
        features["image/class/text"] = tf.train.Feature(bytes_list=text)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


_FINISHED: dict[str, DTypeLike] = {"head": np.uint8, "places": reader.PLACE}


def _store_finished(path: Path, finished: _FinishedShard) -> None:
    head = {"shard": finished.shard.model_dump(), "bad": list(finished.bad.items())}
    store_arrays(path, {"head": np.frombuffer(json.dumps(head).encode(), np.uint8), "places": finished.places})


def _load_finished(shard: Path, stored: Path) -> _FinishedShard | None:
    """Return a shard that was finished before an interruption; None if it is missing or damaged."""
    found = load_arrays(stored, _FINISHED)
    if not found or not shard.is_file():
        return None
    head = json.loads(found["head"].tobytes())
    finished = _FinishedShard(ShardFile.model_validate(head["shard"]), dict(head["bad"]), np.array(found["places"]))
    return finished if sha256_of(shard) == finished.shard.sha256 else None


def _write_index(folder: Path, plan: RecordsPlan, classes: dict[str, int], shards: list[_FinishedShard]) -> None:
    bad = [image for shard in shards for image in shard.bad]
    names = plan.names
    if bad:
        names = Names.of(names.select(np.delete(np.arange(len(names)), bad)))
    if not names:
        raise UserError(f"{folder.name}: no readable image is left")
    places = np.concatenate([shard.places for shard in shards])
    files = {}
    for name, array in ((reader.NAMES, names.text), (reader.NAME_STARTS, names.starts), (reader.PLACES, places)):
        with naming_file(folder / name), (folder / name).open("wb") as file:
            write_array(file, array)
        files[name] = ArrayFile(bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
    header = RecordsHeader(
        format=reader.FORMAT, version=reader.VERSION, images=len(names), classes=list(classes),
        shards=[shard.shard for shard in shards], arrays=files,
    )  # fmt: skip
    write_text(folder / reader.INDEX, header.model_dump_json(indent=1) + "\n")
