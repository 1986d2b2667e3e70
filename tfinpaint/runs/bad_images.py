"""The bad images of a run: named on the terminal, listed whole in a file of the run folder, limited in number.

The file has a line for each: where it was found ("checked", or the epoch of training), the image and the reason, with
tabs between them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.data.failures import MOST_NAMED, Failures
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import BAD_IMAGES, REFUSED_BAD_IMAGES, RESOLVED_CONFIG
from tfinpaint.storage.atomic import write_text
from tfinpaint.storage.write_errors import naming_file

log = logging.getLogger(__name__)

_CHECKED = "checked"

BadImage = tuple[str, str]  # image, reason


def begin_bad_images(folder: Path, *, resumed: bool, checked: Sequence[BadImage]) -> None:
    """Write the list of a run that begins, in place of those of earlier starts.

    Args:
        resumed: what went bad during training is kept.
        checked: the images that were found to be bad before training.
    """
    path = folder / BAD_IMAGES
    kept = [line for line in _lines(path) if not line.startswith(f"{_CHECKED}\t")] if resumed else []
    if kept or checked:
        write_text(path, "".join([*(f"{line}\n" for line in kept), *_as_lines(_CHECKED, checked)]))
    else:
        path.unlink(missing_ok=True)
    (folder / REFUSED_BAD_IMAGES).unlink(missing_ok=True)


def _gone_bad(folder: Path) -> list[str]:
    """The images that are listed as gone bad during training."""
    return [line.split("\t")[1] for line in _lines(folder / BAD_IMAGES) if not line.startswith(f"{_CHECKED}\t")]


def report_checked(world: World, folder: Path, bad: Sequence[BadImage], limit: int) -> None:
    """Name the images that were found to be bad before training; every rank calls this with those of all ranks.

    The run's list is written by `begin`. Where they are too many they are listed at once, in a file of its own where
    the folder holds a run already, whose list is still wanted.

    Raises:
        UserError: they are more than `data.max_bad_images`.
    """
    if not bad:
        return
    lines = [f"{image}: {reason}" for image, reason in bad]
    more = [f"... and {len(bad) - MOST_NAMED} more"] if len(bad) > MOST_NAMED else []
    listed = f"listed in {folder / BAD_IMAGES}"
    if len(bad) > limit:
        path = folder / (REFUSED_BAD_IMAGES if (folder / RESOLVED_CONFIG).exists() else BAD_IMAGES)
        listed = f"listed in {path}"
        if world.is_rank0:
            write_text(path, "".join(_as_lines(_CHECKED, bad)))
        head = f"{len(bad)} unusable images, data.max_bad_images allows {limit}; mend or remove them ({listed}):"
        raise UserError("\n".join([head, *lines[:MOST_NAMED], *more]))
    for line in [*(f"Skipping unusable image {line}" for line in lines[:MOST_NAMED]), *more]:
        log.warning(line)
    log.warning(f"Skipped {len(bad)} unusable images of at most {limit}, {listed}")


class BadImageCounter:
    """Counts over the ranks what goes bad during training; every rank calls it at the end of each epoch."""

    def __init__(self, world: World, folder: Path, failures: Failures, first_epoch: int = 1) -> None:
        """
        Args:
            failures: of this rank, with the number of bad images of all ranks that were found before.
            first_epoch: of this start of the run.
        """
        self._world, self._folder, self._failures = world, folder, failures
        self._checked, self._reported, self._since = failures.before, 0, 0
        self._epoch = first_epoch

    def __call__(self, epoch: int, *_: object) -> None:
        """List what is new.

        Raises:
            UserError: the bad images of all ranks, before and since, are more than `data.max_bad_images`.
        """
        failures, limit = self._failures, self._failures.limit or 0
        mine = list(failures.found.values())
        new = [tuple(bad) for part in self._world.all_gather(mine[self._reported :]) for bad in part]
        self._reported, self._epoch = len(mine), epoch + 1
        if not new:
            return
        self._since += len(new)
        failures.before = self._checked + self._since - self._reported
        if self._world.is_rank0:
            listed = set(_gone_bad(self._folder))  # by the training that is resumed
            _append(self._folder, f"epoch {epoch}", [bad for bad in new if _plain(bad[0]) not in listed])
        counts = f"{self._since} images are unusable since they were checked, {self._checked} were before"
        listed_in = f"listed in {self._folder / BAD_IMAGES}"
        if self._checked + self._since > limit:
            lines = [f"{image}: {reason}" for image, reason in new[:MOST_NAMED]]
            more = [f"... and {len(new) - MOST_NAMED} more"] if len(new) > MOST_NAMED else []
            head = f"{counts}; data.max_bad_images allows {limit}; mend or remove them ({listed_in}):"
            raise UserError("\n".join([head, *lines, *more]))
        log.warning(f"{counts}, of at most {limit}; others are in their places ({listed_in})")

    def close(self) -> None:
        """List what this rank has found in an epoch that does not come to its end, as training ends for any reason."""
        new = list(self._failures.found.values())[self._reported :]
        with contextlib.suppress(OSError):  # of another host, which may not see the folder: there is an error to tell
            listed = set(_gone_bad(self._folder))
            if unlisted := [bad for bad in new if _plain(bad[0]) not in listed]:
                _append(self._folder, f"epoch {self._epoch}", unlisted)


def _append(folder: Path, found: str, bad: Sequence[BadImage]) -> None:
    path = folder / BAD_IMAGES
    with naming_file(path), path.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(_as_lines(found, bad))


def _as_lines(found: str, bad: Sequence[BadImage]) -> list[str]:
    return [f"{found}\t{_plain(image)}\t{_plain(reason)}\n" for image, reason in bad]


def _plain(text: str) -> str:
    """Without what would end a line or a column."""
    return " ".join(text.splitlines()).replace("\t", " ")


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    return [line for line in text.split("\n") if line.count("\t") == 2]
