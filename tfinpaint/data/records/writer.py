"""Packing images into the TFRecord shards that `data.records` reads, so that it can be interrupted."""

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

from tfinpaint.data.images.decode import CHECK, is_of_the_process, look_at_image
from tfinpaint.data.ingest.source import UNREADABLE, ReadFile
from tfinpaint.data.listing.excluded import more_in_words
from tfinpaint.data.listing.names import Names
from tfinpaint.data.records import reader
from tfinpaint.data.records.plan import RecordsPlan
from tfinpaint.data.records.reader import ArrayFile, RecordsHeader, ShardFile, sha256_of
from tfinpaint.errors import UserError
from tfinpaint.storage import mapped_arrays
from tfinpaint.storage.atomic import atomic_file, write_text
from tfinpaint.storage.mapped_arrays import load_arrays, store_arrays
from tfinpaint.storage.write_errors import naming_file, os_error_of_message
from tfinpaint.system.parallel import parallel_map
from tfinpaint.system.progress import log_progress

log = logging.getLogger(__name__)

_BEFORE, _AFTER = 12, 4  # bytes that TFRecord has around each record: its length and two checksums


@dataclass(frozen=True)
class _Written:
    """A finished shard.

    Attributes:
        bad: number of each image that is left out -> reason.
        places: `records.PLACE` of each of the others.
    """

    shard: ShardFile
    bad: dict[int, str]
    places: np.ndarray


def write_records(folder: Path, progress: Path, packing: RecordsPlan, read: ReadFile) -> list[tuple[str, str]]:
    """Write a folder of records. Where that was interrupted, the shards that were finished are kept.

    Args:
        folder: the folder of records, in a place that nobody reads yet.
        progress: a folder for what is known of the finished shards; both must have been made for the same packing.
        read: from an image's source to its bytes; called from several threads.

    Returns:
        (source, reason) of each image that cannot be read and is left out.

    Raises:
        UserError: an image has changed since the packing was planned, or none can be read.
        OSError: the records cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress.mkdir(parents=True, exist_ok=True)
    classes = packing.classes()
    parts = packing.divide()
    names = [f"images-{number:05}-of-{len(parts):05}.tfrecord" for number in range(len(parts))]
    shards = {name: shard for name in names if (shard := _finished(folder / name, progress / name))}
    if shards:
        log.info(f"{folder}: {len(shards)} of {len(parts)} shards were finished before")
    left = [(name, part) for name, part in zip(names, parts, strict=True) if name not in shards]

    more: list[int] = []
    images = (image for _, part in left for image in part)
    loaded = parallel_map(lambda image: _load(packing, image, read, more), images)
    loaded = log_progress(loaded, sum(len(part) for _, part in left), f"Packing into {folder}")
    for name, part in left:
        shards[name] = _write_shard(folder / name, packing, classes, part, loaded)
        _keep(progress / name, shards[name])
    if more:
        log.info(more_in_words(len(more), packing.sources[min(more)]))
    _write_index(folder, packing, classes, [shards[name] for name in names])
    return [(packing.sources[image], reason) for name in names for image, reason in shards[name].bad.items()]


def _load(packing: RecordsPlan, image: int, read: ReadFile, more: list[int]) -> tuple[bytes, str]:
    """(contents, reason why they cannot be used or ""); `more` grows by an image of several pictures."""
    source = packing.sources[image]
    try:
        contents = read(source)
        if not packing.checked and look_at_image(io.BytesIO(contents), CHECK).has_more:
            more.append(image)
    except UNREADABLE as error:
        if is_of_the_process(error):
            raise
        return b"", str(error)
    if len(contents) != packing.sizes[image]:
        raise UserError(f"{source}: has {len(contents)} bytes, {packing.sizes[image]} when packing began")
    return contents, ""


def _write_shard(
    path: Path, packing: RecordsPlan, classes: dict[str, int], images: range, loaded: Iterator[tuple[bytes, str]]
) -> _Written:
    """Write the next of the loaded images into one shard."""
    places, bad, end = [], {}, 0
    try:
        with atomic_file(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for image, (contents, reason) in zip(images, loaded, strict=False):
                if reason:
                    bad[image] = reason
                    continue
                record = _example(contents, packing.names[image], classes)
                # Wherever the image's bytes are found first in the record: they are the image's bytes.
                places.append((end + _BEFORE + record.find(contents), len(contents), zlib.crc32(contents)))
                writer.write(record)
                end += _BEFORE + len(record) + _AFTER
    except tf.errors.OpError as error:
        raise os_error_of_message(error.message, path) from None
    shard = ShardFile(name=path.name, bytes=end, sha256=sha256_of(path), images=len(places))
    return _Written(shard, bad, np.array(places, reader.PLACE))


def _example(contents: bytes, name: str, classes: dict[str, int]) -> bytes:
    """A tf.train.Example with the keys that are usual for images, the same bytes at every call."""
    values = {"image/encoded": contents, "image/filename": name.encode()}
    features = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for key, value in values.items()}
    if "/" in name:
        label = name.partition("/")[0]
        number = tf.train.Int64List(value=[classes[label]])
        text = tf.train.BytesList(value=[label.encode()])
        features["image/class/label"] = tf.train.Feature(int64_list=number)
        features["image/class/text"] = tf.train.Feature(bytes_list=text)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


_KEPT: dict[str, DTypeLike] = {"head": np.uint8, "places": reader.PLACE}


def _keep(path: Path, written: _Written) -> None:
    head = {"shard": written.shard.model_dump(), "bad": list(written.bad.items())}
    store_arrays(path, {"head": np.frombuffer(json.dumps(head).encode(), np.uint8), "places": written.places})


def _finished(shard: Path, kept: Path) -> _Written | None:
    """A shard of an earlier start, None where it is not finished or not what was written."""
    found = load_arrays(kept, _KEPT)
    if not found or not shard.is_file():
        return None
    head = json.loads(found["head"].tobytes())
    written = _Written(ShardFile.model_validate(head["shard"]), dict(head["bad"]), np.array(found["places"]))
    return written if sha256_of(shard) == written.shard.sha256 else None


def _write_index(folder: Path, packing: RecordsPlan, classes: dict[str, int], written: list[_Written]) -> None:
    bad = [image for shard in written for image in shard.bad]
    names = packing.names
    if bad:
        names = Names.of(names.select(np.delete(np.arange(len(names)), bad)))
    if not names:
        raise UserError(f"{folder.name}: no readable image is left")
    places = np.concatenate([shard.places for shard in written])
    described = {}
    for name, array in ((reader.NAMES, names.text), (reader.NAME_STARTS, names.starts), (reader.PLACES, places)):
        with naming_file(folder / name), (folder / name).open("wb") as file:
            mapped_arrays.write_array(file, array)
        described[name] = ArrayFile(bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
    contents = RecordsHeader(
        format=reader.FORMAT, version=reader.VERSION, images=len(names), classes=list(classes),
        shards=[shard.shard for shard in written], arrays=described,
    )  # fmt: skip
    write_text(folder / reader.INDEX, contents.model_dump_json(indent=1) + "\n")
