"""Pack a folder or archive of images into records; the same call resumes what was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfinpaint.data.ingest import destination
from tfinpaint.data.ingest.source import Source, open_source
from tfinpaint.data.ingest.split import SIDES, check_empty_folders, check_test_fraction, split_classes
from tfinpaint.data.ingest.summary import Report, facts_of
from tfinpaint.data.listing.excluded import ExcludedFiles
from tfinpaint.data.listing.names import Names
from tfinpaint.data.records import plan as records_plan
from tfinpaint.data.records import reader
from tfinpaint.data.records.plan import RecordsPlan, check_record_names
from tfinpaint.errors import UserError
from tfinpaint.storage.atomic import write_json
from tfinpaint.storage.write_errors import explain_os_error
from tfinpaint.system.parallel import parallel_map_blocks
from tfinpaint.system.wording import counted

# (folder in the destination -> the records in it, facts for the report)
FolderPlans = tuple[dict[str, RecordsPlan], dict[str, Any]]


def prepare_records(
    source: Path, dest: Path, *, test_fraction: float = 0.1, seed: int = 0, skip_empty_classes: bool = False
) -> Report:
    """Do what `prepare` does, with records (`data.records`) instead of files in `dest/training` and `dest/testing`.

    After an interruption, the same call resumes after the last finished shard, and writes the same bytes.

    Raises:
        UserError: as `prepare`; or `dest` was begun with other arguments, or from a source that has changed since.
    """
    check_test_fraction(test_fraction)

    def plan(opened: Source) -> FolderPlans:
        check_record_names(opened.images)
        split = split_classes(opened, test_fraction, seed, skip_empty_classes=skip_empty_classes)
        plans = {}
        for side, images in split.sides.items():
            pairs = sorted(images, key=lambda pair: pair[1])
            sources = [path for path, _ in pairs]
            sizes = np.array([opened.state(path)[0] for path in sources], np.int64)
            plans[side] = RecordsPlan(Names.of(name for _, name in pairs), Names.of(sources), sizes, checked=True)
        return plans, facts_of(split)

    arguments = {"test_fraction": test_fraction, "seed": seed, "skip_empty_classes": skip_empty_classes}
    dest, facts, lost = _write_records(source, dest, arguments, plan)
    return Report.of(dest, facts, lost)


def pack(source: Path, dest: Path, *, skip_empty_classes: bool = False) -> Report:
    """Write all images of a folder or archive into one folder of records, under their paths in the source.

    Class folders are optional, and remain classes. An interrupted call is resumed as by `prepare_records`.

    Args:
        skip_empty_classes: exclude folders at the top without an image below them. Otherwise they are errors: they
            would be classes of the source that are not in the records.

    Raises:
        UserError: no such source, no images in it, `dest` is in use, or was begun with other arguments or from a source
            that has changed since, or cannot be written.
    """

    def plan(opened: Source) -> FolderPlans:
        check_record_names(opened.images)
        states = _read_states(opened)
        notes = check_empty_folders(opened, [""], (), skip=skip_empty_classes)
        packed = RecordsPlan(opened.images, opened.images, np.ascontiguousarray(states[:, 0]), checked=False)
        excluded = opened.excluded_below().to_json()
        return {"": packed}, {"images": len(opened.images), "skipped": excluded, "notes": notes}

    arguments = {"test_fraction": None, "seed": None, "skip_empty_classes": skip_empty_classes}
    dest, facts, lost = _write_records(source, dest, arguments, plan)
    bad, excluded = tuple(lost[""]), ExcludedFiles.from_json(facts["skipped"])
    return Report(dest, facts["images"] - len(bad), {}, excluded, bad, tuple(facts["notes"]))


def verify(folder: Path) -> list[str]:
    """Compare the records in a folder, or in its `training/`, `testing/` and `validation/`, with their checksums.

    Returns:
        A line for each folder of records.

    Raises:
        UserError: there are no records, or some are damaged; all of these are named.
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
            lines.append(f"{path}: {counted(images, 'image')}, {size} bytes, all intact")
    if damaged:
        raise UserError("\n".join(damaged))
    return lines


def _write_records(
    source: Path, dest: Path, arguments: dict[str, Any], make_plans: Callable[[Source], FolderPlans]
) -> tuple[Path, dict[str, Any], dict[str, list[tuple[str, str]]]]:
    """Make the plans, or load those of an interrupted call; write what is missing; put everything in place.

    Returns:
        (destination, facts for the report, side -> (path in the source, reason) of each image that was not packed).
    """
    from tfinpaint.data.records.writer import write_records  # TensorFlow takes seconds to load

    dest = destination.check_destination(source, dest)
    partial = destination.partial_folder(dest)
    lost = {}
    try:
        with destination.locked(partial) as progress:
            try:
                with open_source(source, progress / destination.SCRATCH) as opened:
                    given = {"source": str(source.resolve()), "shard_bytes": records_plan.SHARD_BYTES, **arguments}
                    given["files"] = _fingerprint(opened)
                    plans, facts = _load_or_make_plans(progress, given, lambda: make_plans(opened))
                    for name, plan in plans.items():
                        lost[name] = write_records(partial / name, progress / f"shards_{name}", plan, opened.read)
                destination.put_in_place(partial, dest)
            finally:
                if not (progress / destination.PLAN).exists():  # nothing to resume
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{dest}: cannot be written: {explain_os_error(error)}; finished shards are kept in {partial}, and the "
            "same command resumes from them"
        ) from None
    return dest, facts, lost


def _load_or_make_plans(progress: Path, given: dict[str, Any], make: Callable[[], FolderPlans]) -> FolderPlans:
    """Return the plans of an interrupted call with the same arguments, or new ones."""
    path = progress / destination.PLAN
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if begun is None:
        plans, facts = make()
        for name, plan in plans.items():
            plan.store(progress / f"plan_{name}.npy")
        write_json(path, {"given": given, "parts": list(plans), "facts": facts})
        return plans, facts
    for name, value in given.items():
        if (before := begun["given"].get(name)) != value:
            change = "its images have changed since" if name == "files" else f"{name} was {before} and is {value}"
            raise UserError(
                f"{progress.parent}: contains unfinished records from other arguments ({change}); use those, or remove "
                "that folder"
            )
    loaded = {name: RecordsPlan.load(progress / f"plan_{name}.npy") for name in begun["parts"]}
    plans = {name: plan for name, plan in loaded.items() if plan}
    if len(plans) < len(loaded):
        raise UserError(f"{progress}: is damaged; remove {progress.parent} and start again")
    return plans, begun["facts"]


def _read_states(source: Source) -> np.ndarray:
    """Return int64 [images, 2]: size in bytes of each image, and a number that changes when it does."""
    if not source.images:
        found = source.excluded_below().summary()
        raise UserError(f"{source.path}: no images found{f' ({found})' if found else ''}")
    states = np.empty((len(source.images), 2), np.int64)
    for place, state in enumerate(parallel_map_blocks(source.state, source.images)):
        states[place] = state
    return states


def _fingerprint(source: Source) -> str:
    """Return a text that changes when an image is added, removed, renamed or changed."""
    states = _read_states(source)
    return f"{source.images.digest()} {hashlib.sha256(states.tobytes()).hexdigest()}"
