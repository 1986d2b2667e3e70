"""A folder or archive of images -> training/ and testing/ as files, or the same, or the whole of it, as records."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.data.images.decode import is_of_the_process
from tfinpaint.data.ingest.source import UNREADABLE, Source, open_source
from tfinpaint.data.ingest.split import SIDES, check_empty_folders, split_classes
from tfinpaint.data.ingest.summary import PackReport, Report, facts_of
from tfinpaint.data.listing.excluded import Skipped
from tfinpaint.data.listing.names import Names
from tfinpaint.data.records import plan as packing
from tfinpaint.data.records import reader
from tfinpaint.data.records.plan import RecordsPlan, check_record_names
from tfinpaint.errors import UserError
from tfinpaint.storage.atomic import write_json
from tfinpaint.storage.write_errors import explain_os_error
from tfinpaint.system.parallel import parallel_map_blocks
from tfinpaint.system.progress import log_progress


def prepare(
    source: Path, dest: Path, *, test_fraction: float = 0.1, seed: int = 0, skip_empty_classes: bool = False
) -> Report:
    """Copy the images of `source` into `dest/training/<class>/` and `dest/testing/<class>/`, files as they are.

    The split takes the same share of every class. It depends on the seed and the contents of the files alone, and
    copies of one file within a class end up on the same side. A source that is divided already stays so. `dest`
    appears complete or not at all.

    Args:
        source: a folder, zip or tar file with one folder per class, at any depth; or "digits" for scikit-learn's
            bundled handwritten digits.
        test_fraction: share of each class for testing/, between 0 and 1; at least one image.
        skip_empty_classes: leave out class folders without a usable image, which are errors otherwise.

    Raises:
        UserError: no such source, no class folders, an empty one, `dest` is in use, or it cannot be written.
    """
    _check_fraction(test_fraction)
    dest = _check_dest(source, dest)
    partial = _partial(dest)
    if (partial / _PROGRESS / _PLAN).exists():
        raise UserError(f"{partial}: holds unfinished records; finish them with --records, or remove that folder")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with open_source(source, partial / _SCRATCH) as origin:
            split = split_classes(origin, test_fraction, seed, skip_empty_classes=skip_empty_classes)
            lost = _copy(origin, split.sides, partial)
        shutil.rmtree(partial / _SCRATCH, ignore_errors=True)
        _put_in_place(partial, dest)
    except OSError as error:
        raise UserError(f"{dest}: cannot be written: {explain_os_error(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Report.of(dest, facts_of(split), lost)


def _copy(origin: Source, sides: dict[str, list[tuple[str, str]]], dest: Path) -> dict[str, list[tuple[str, str]]]:
    """Side -> (path, reason) of the images that can no longer be read."""
    files = [(side, path, dest / side / name) for side in sides for path, name in sides[side]]
    lost: dict[str, list[tuple[str, str]]] = {side: [] for side in sides}
    for side, path, target in log_progress(files, len(files), f"Copying {origin.path}"):
        try:
            contents = origin.read(path)
        except UNREADABLE as error:
            if is_of_the_process(error):
                raise
            lost[side].append((path, f"could be read when it was checked, no longer: {error}"))
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents)
    return lost


def prepare_records(
    source: Path, dest: Path, *, test_fraction: float = 0.1, seed: int = 0, skip_empty_classes: bool = False
) -> Report:
    """As `prepare`, with records in `dest/training` and `dest/testing` (`data.records`) in place of files.

    Where it was interrupted, the same call goes on after the last finished shard, and leaves the same bytes.

    Raises:
        UserError: as `prepare`; or `dest` was begun with other arguments, or from a source that has changed since.
    """
    _check_fraction(test_fraction)

    def plan(origin: Source) -> FolderPlans:
        check_record_names(origin.images)
        split = split_classes(origin, test_fraction, seed, skip_empty_classes=skip_empty_classes)
        packings = {}
        for side, images in split.sides.items():
            pairs = sorted(images, key=lambda pair: pair[1])
            sources = [path for path, _ in pairs]
            sizes = np.array([origin.state(path)[0] for path in sources], np.int64)
            packings[side] = RecordsPlan(Names.of(name for _, name in pairs), Names.of(sources), sizes, checked=True)
        return packings, facts_of(split)

    arguments = {"test_fraction": test_fraction, "seed": seed, "skip_empty_classes": skip_empty_classes}
    dest, facts, lost = _write_records(source, dest, arguments, plan)
    return Report.of(dest, facts, lost)


def pack(source: Path, dest: Path, *, skip_empty_classes: bool = False) -> PackReport:
    """Write all images of a folder or archive into one folder of records, under the paths that they have.

    Class folders need not be there; where they are, they are classes as they were. Goes on like `prepare_records`.

    Args:
        skip_empty_classes: leave out folders at the top without an image below them, which are errors otherwise: they
            would be classes in the source, and none in the records.

    Raises:
        UserError: no such source, no images in it, `dest` is in use, or was begun with other arguments or from a source
            that has changed since, or cannot be written.
    """

    def plan(origin: Source) -> FolderPlans:
        check_record_names(origin.images)
        images, states = _look_at_images(origin)
        notes = check_empty_folders(origin, [""], (), skip=skip_empty_classes)
        packed = RecordsPlan(images, images, np.ascontiguousarray(states[:, 0]), checked=False)
        return {"": packed}, {"images": len(images), "skipped": origin.skipped_below().to_json(), "notes": notes}

    arguments = {"test_fraction": None, "seed": None, "skip_empty_classes": skip_empty_classes}
    dest, facts, lost = _write_records(source, dest, arguments, plan)
    bad = tuple(lost[""])
    return PackReport(dest, facts["images"] - len(bad), Skipped.of_json(facts["skipped"]), bad, tuple(facts["notes"]))


def verify(folder: Path) -> list[str]:
    """Read the records in a folder, or in the folders in it, and compare all with the checksums.

    Returns:
        A line for each folder of records.

    Raises:
        UserError: there are none, or some are damaged; all of these are named.
    """
    found = [path for path in (folder, *(folder / side for side in SIDES)) if reader.is_records(path)]
    if not found:
        raise UserError(f"{folder}: no records there, nor in training/ or testing/; expected {reader.INDEX}")
    lines, damaged = [], []
    for path in found:
        try:
            images, size = reader.verify_records(path)
        except UserError as error:
            damaged.append(str(error))
        else:
            lines.append(f"{path}: {images} images, {size} bytes, as they were written")
    if damaged:
        raise UserError("\n".join(damaged))
    return lines


FolderPlans = tuple[
    dict[str, RecordsPlan], dict[str, Any]
]  # (folder in the destination -> what is in it, facts for the report)
_PROGRESS, _PLAN, _SCRATCH = ".progress", "plan.json", ".scratch"


def _write_records(
    source: Path, dest: Path, arguments: dict[str, Any], make_plan: Callable[[Source], FolderPlans]
) -> tuple[Path, dict[str, Any], dict[str, list[tuple[str, str]]]]:
    """Plan, or find the plan of an earlier start; write what is missing; put it in place.

    Returns:
        (destination, the plan's facts, side -> (path in the source, reason) of each image that could not be packed).
    """
    from tfinpaint.data.records.writer import write_records  # TensorFlow takes seconds to load

    dest = _check_dest(source, dest)
    partial = _partial(dest)
    progress = partial / _PROGRESS
    lost = {}
    try:
        progress.mkdir(parents=True, exist_ok=True)
        with _locked(progress):
            try:
                with open_source(source, progress / _SCRATCH) as origin:
                    given = {"source": str(source.resolve()), "shard_bytes": packing.SHARD_BYTES, **arguments}
                    given["files"] = _fingerprint(origin)
                    packings, facts = _plan(progress, given, lambda: make_plan(origin))
                    for name, part in packings.items():
                        lost[name] = write_records(partial / name, progress / f"shards_{name}", part, origin.read)
                _put_in_place(partial, dest)
                shutil.rmtree(dest / _PROGRESS)
            finally:
                if not (progress / _PLAN).exists():  # nothing to go on with
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{dest}: cannot be written: {explain_os_error(error)}; what was finished is kept in {partial}, and "
            "the same command goes on with it"
        ) from None
    return dest, facts, lost


def _plan(progress: Path, given: dict[str, Any], make: Callable[[], FolderPlans]) -> FolderPlans:
    """The plan of an earlier start with the same arguments, or a new one."""
    path = progress / _PLAN
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if begun is None:
        packings, facts = make()
        for name, part in packings.items():
            part.store(progress / f"plan_{name}.npy")
        write_json(path, {"given": given, "parts": list(packings), "facts": facts})
        return packings, facts
    for name, value in given.items():
        if (before := begun["given"].get(name)) != value:
            change = "its images have changed since" if name == "files" else f"{name} was {before} and is {value}"
            raise UserError(
                f"{progress.parent}: holds unfinished records of other arguments ({change}); start with those, or "
                "remove that folder"
            )
    loaded = {name: RecordsPlan.load(progress / f"plan_{name}.npy") for name in begun["parts"]}
    packings = {name: part for name, part in loaded.items() if part}
    if len(packings) < len(loaded):
        raise UserError(f"{progress}: is damaged; remove {progress.parent} and start anew")
    return packings, begun["facts"]


def _look_at_images(origin: Source) -> tuple[Names, np.ndarray]:
    """(names of the images, int64 [images, 2]: size and mark of each)."""
    if not origin.images:
        found = origin.skipped_below().line()
        raise UserError(f"{origin.path}: no images found{f' ({found})' if found else ''}")
    states = np.empty((len(origin.images), 2), np.int64)
    for place, state in enumerate(parallel_map_blocks(origin.state, origin.images)):
        states[place] = state
    return origin.images, states


def _fingerprint(origin: Source) -> str:
    """Changes when an image is added, removed, renamed or changed."""
    images, states = _look_at_images(origin)
    return f"{images.digest()} {hashlib.sha256(states.tobytes()).hexdigest()}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder.parent}: another process is packing there") from None
        yield


def _check_fraction(test_fraction: float) -> None:
    if not 0 < test_fraction < 1:
        raise UserError(f"--test-fraction {test_fraction}: expected a share between 0 and 1, such as 0.1")


def _check_dest(source: Path, dest: Path) -> Path:
    """The destination, absolute, which is free."""
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UserError(f"{dest}: already exists; remove it or name another folder")
    dest = dest.resolve()
    if source.is_dir() and dest.is_relative_to(source.resolve()):
        raise UserError(f"{dest}: lies inside {source}; name a folder elsewhere")
    return dest


def _partial(dest: Path) -> Path:
    return dest.with_name(f".{dest.name}.partial")


def _put_in_place(partial: Path, dest: Path) -> None:
    if dest.exists():
        dest.rmdir()
    partial.rename(dest)
