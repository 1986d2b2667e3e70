"""The bad images of a run: named on the terminal, listed in a file of the run folder, limited in number.

The file has a line for each bad image: where it was found ("checked", or the epoch of training), the image and the
reason, separated by tabs.
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
from tfinpaint.system.paths import display_path, shorten_paths
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)

ANY_NUMBER = 2**31 - 1  # a limit that stands for none
_CHECKED = "checked"

BadImage = tuple[str, str]  # image, reason


def begin_bad_images(folder: Path, *, resumed: bool, checked: Sequence[BadImage]) -> None:
    """Write the list of a run that begins, in place of those of earlier starts.

    Args:
        resumed: keep what went bad during training.
        checked: the images that were found to be bad before training.
    """
    path = folder / BAD_IMAGES
    kept = [line for line in _lines(path) if not line.startswith(f"{_CHECKED}\t")] if resumed else []
    if kept or checked:
        write_text(path, "".join([*(f"{line}\n" for line in kept), *_as_lines(_CHECKED, checked)]))
    else:
        path.unlink(missing_ok=True)
    (folder / REFUSED_BAD_IMAGES).unlink(missing_ok=True)


def report_checked(world: World, folder: Path, bad: Sequence[BadImage], limit: int) -> None:
    """Log the images that were found to be bad before training; every rank calls this with those of all ranks.

    `begin_bad_images` writes the list of the run. Too many images are listed at once instead, in a file of their own
    where the folder holds a run already, whose list is still needed.

    Raises:
        UserError: there are more than `data.max_bad_images`.
    """
    if not bad:
        return
    if len(bad) > limit:
        path = folder / (REFUSED_BAD_IMAGES if (folder / RESOLVED_CONFIG).exists() else BAD_IMAGES)
        if world.is_rank0:
            write_text(path, "".join(_as_lines(_CHECKED, bad)))
        head = (
            f"{len(bad)} unusable images, data.max_bad_images allows {limit}; repair or remove them (listed in "
            f"{display_path(path)}):"
        )
        raise UserError("\n".join([head, *_name(bad)]))
    for line in _name(bad, "Skipping unusable image "):
        log.warning(shorten_paths(line))
    are = "cannot be read and is left out" if len(bad) == 1 else "cannot be read and are left out"
    most = f" (data.max_bad_images allows {limit})" if limit < ANY_NUMBER else ""
    log.warning(f"{counted(len(bad), 'image')} {are}{most}, listed in {display_path(folder / BAD_IMAGES)}")


class BadImageCounter:
    """Counts the images that fail during training over the ranks; every rank calls it at the end of each epoch."""

    def __init__(self, world: World, folder: Path, failures: Failures, first_epoch: int = 1) -> None:
        """
        Args:
            folder: of the run.
            failures: those of this rank, with the number of bad images of all ranks that were found before.
            first_epoch: of this start of the run.
        """
        self._world, self._folder, self._failures = world, folder, failures
        self._checked, self._reported, self._since = failures.before, 0, 0
        self._epoch = first_epoch

    def __call__(self, epoch: int, *_: object) -> None:
        """List the images that have failed in this epoch.

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
            self._list(new, epoch)
        count, was = (
            f"{counted(self._since, 'image')} failed during training",
            "was" if self._since == 1 else "were",
        )
        listed = f"listed in {display_path(self._folder / BAD_IMAGES)}"
        if self._checked + self._since > limit:
            count = f"{count} ({self._checked} before); data.max_bad_images allows {limit}"
            raise UserError("\n".join([f"{count}; repair or remove them ({listed}):", *_name(new)]))
        log.warning(f"{count} ({self._checked} before; limit {limit}) and {was} replaced, {listed}")

    def close(self) -> None:
        """List what this rank has found in an epoch that does not end, because training ends for any reason."""
        new = list(self._failures.found.values())[self._reported :]
        with contextlib.suppress(OSError):  # another host may not see the folder, and there is an error to report
            self._list(new, self._epoch)

    def _list(self, bad: Sequence[BadImage], epoch: int) -> None:
        """Add to the file what is not there yet, as that of an earlier start of the run may be."""
        path = self._folder / BAD_IMAGES
        listed = {line.split("\t")[1] for line in _lines(path) if not line.startswith(f"{_CHECKED}\t")}
        if new := [image for image in bad if _plain(image[0]) not in listed]:
            with naming_file(path), path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(_as_lines(f"epoch {epoch}", new))


def _name(bad: Sequence[BadImage], prefix: str = "") -> list[str]:
    """Return a line for each of the first bad images, and one about the others."""
    more = [f"... and {len(bad) - MOST_NAMED} more"] if len(bad) > MOST_NAMED else []
    return [*(f"{prefix}{image}: {reason}" for image, reason in bad[:MOST_NAMED]), *more]


def _as_lines(found: str, bad: Sequence[BadImage]) -> list[str]:
    return [f"{found}\t{_plain(image)}\t{_plain(reason)}\n" for image, reason in bad]


def _plain(text: str) -> str:
    """Return a text without what would end a line or a column."""
    return " ".join(text.splitlines()).replace("\t", " ")


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    return [line for line in text.split("\n") if line.count("\t") == 2]
