"""Lock the folders that a run writes into, and leave them as they were where the run never begins."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import IO

from tfinpaint.errors import UserError
from tfinpaint.layout import LOCK
from tfinpaint.storage.atomic import make_folder


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class RunLock:
    """Locks on the folders of a run, held until the end of a `with` statement, or of the process, however it ends.

    Where `begin` was not called by then, the folders and lock files that were made are removed again.
    """

    def __init__(self) -> None:
        self._locks: list[IO[str]] = []
        self._made: list[Path] = []  # folders and lock files, in the order in which they were made
        self._begun = False

    @property
    def has_begun(self) -> bool:
        """Return whether `begin` was called."""
        return self._begun

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        made = [] if self._begun else self._made
        for path in reversed(made):
            with contextlib.suppress(OSError):  # the folder is not empty any more
                path.rmdir() if path.is_dir() else path.unlink()
        for lock in self._locks:
            lock.close()
        self._locks, self._made = [], []

    def take(self, folder: Path) -> None:
        """Lock a folder, which is made where it does not exist. One that is locked already stays so.

        Raises:
            UserError: another process, or another run of this one, holds the lock.
            OSError: the folder cannot be made or written.
        """
        path = folder / LOCK
        if path.exists() and any(os.path.samestat(os.fstat(lock.fileno()), path.stat()) for lock in self._locks):
            return
        self._made += [each for each in reversed((folder, *folder.parents)) if not each.exists()]
        make_folder(folder)
        while True:
            is_new = not path.exists()
            lock = path.open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                raise UserError(
                    f"{folder}: another process is training there; name another folder (--workdir, checkpoints.save)"
                ) from None
            if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                break
            lock.close()  # another process has removed this file meanwhile
        self._locks.append(lock)
        self._made += [path] if is_new else []

    def begin(self) -> None:
        """Keep what was made: the run begins."""
        self._begun = True
