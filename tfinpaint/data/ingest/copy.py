"""Copy a folder or archive of images into `training/` and `testing/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.ingest import destination
from tfinpaint.data.ingest.source import Source, open_source
from tfinpaint.data.ingest.split import check_test_fraction, split_classes
from tfinpaint.data.ingest.summary import Report, facts_of
from tfinpaint.errors import UserError
from tfinpaint.storage.write_errors import explain_os_error
from tfinpaint.system.progress import log_progress


def prepare(
    source: Path, dest: Path, *, test_fraction: float = 0.1, seed: int = 0, skip_empty_classes: bool = False
) -> Report:
    """Copy the images of `source` into `dest/training/<class>/` and `dest/testing/<class>/`, without changing them.

    The split takes the same fraction of every class. It depends only on the seed and the contents of the files, and
    copies of one file within a class are on the same side. A source that is already divided keeps its division. `dest`
    appears complete or not at all.

    Args:
        source: a folder, zip or tar file with one folder per class, at any depth; or "digits" for the handwritten
            digits of scikit-learn.
        test_fraction: fraction of each class for testing/, between 0 and 1; at least one image.
        skip_empty_classes: exclude class folders without a usable image, which are errors otherwise.

    Raises:
        UserError: no such source, no class folders, an empty one, `dest` is in use, or it cannot be written.
    """
    check_test_fraction(test_fraction)
    dest = destination.check_destination(source, dest)
    partial = destination.partial_folder(dest)
    if (partial / destination.PROGRESS / destination.PLAN).exists():
        raise UserError(f"{partial}: contains unfinished records; finish them with --records, or remove that folder")
    try:
        with destination.locked(partial) as progress:
            try:
                _remove_all_but(progress, partial)  # what a killed process has left
                with open_source(source, progress / destination.SCRATCH) as opened:
                    split = split_classes(opened, test_fraction, seed, skip_empty_classes=skip_empty_classes)
                    lost = _copy(opened, split.sides, partial)
                destination.put_in_place(partial, dest)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{dest}: cannot be written: {explain_os_error(error)}") from None
    return Report.of(dest, facts_of(split), lost)


def _remove_all_but(kept: Path, folder: Path) -> None:
    for path in folder.iterdir():
        if path != kept:
            shutil.rmtree(path)


def _copy(source: Source, sides: dict[str, list[tuple[str, str]]], dest: Path) -> dict[str, list[tuple[str, str]]]:
    """Copy the images, and return side -> (path, reason) of those that can no longer be read."""
    files = [(side, path, dest / side / name) for side in sides for path, name in sides[side]]
    lost: dict[str, list[tuple[str, str]]] = {side: [] for side in sides}
    for side, path, target in log_progress(files, len(files), f"Copying {source.path}"):
        try:
            contents = source.read(path)
        except UnreadableImageError as error:
            lost[side].append((path, f"became unreadable after the initial check: {error}"))
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents)
    return lost
