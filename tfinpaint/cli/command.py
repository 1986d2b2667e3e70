"""Run a command: set up logging, and end the process on every rank with one clear message if it fails."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator

from tfinpaint.data.listing.walk import printable
from tfinpaint.distributed.environment import launched_rank
from tfinpaint.distributed.failures import end_rank, failure_elsewhere, tell_failure
from tfinpaint.distributed.heartbeat import EXIT_PEER_FAILED, stopping_message
from tfinpaint.distributed.launch import leave_ranks
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.storage.write_errors import explain_os_error, is_disk_error
from tfinpaint.system import startup, streams
from tfinpaint.system.paths import shorten_paths

log = logging.getLogger(__name__)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
NOISY = ("absl", "h5py", "matplotlib", "PIL", "tensorflow")  # loggers whose warnings are no help to a user

# TensorFlow reads this when it is imported; its notices would hide what a user should see.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Give the root logger to this program; restore its handlers and its level afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@_own_logging()
def run_command(command: Callable[[], None], *, needs_output: bool = True) -> int:
    """Run a command; turn a failure into one clear message and an exit code on every rank.

    Args:
        needs_output: True if the command is run for what it prints, and fails if that cannot be written. A reader that
            closes the pipe is no failure.

    Returns:
        0, also for a run that was asked to stop and is saved. On a single rank: 2 for a UserError, 130 for an
        interrupt, 1 for anything unexpected. With several ranks a failing process ends here at once, because waiting
        for the others would never end; it tells them before, and they end with exit code 3.
    """
    if launched_rank() == 0:
        streams.use_terminal()
    streams.make_lenient()
    if any(option.startswith("error") for option in sys.warnoptions):  # by -W or PYTHONWARNINGS
        warnings.simplefilter("default")  # TensorFlow's own deprecations would end a run
    log_to_stdout(launched_rank())
    code = 0
    try:
        try:
            _check_encoding()
            command()
        except StoppedError as stopped:
            log.info(str(stopped))
            code = stopped.exit_code
        leave_ranks()
        sys.stdout.flush()
        return EXIT_USER_ERROR if needs_output and streams.failure_of_output() else code
    except BaseException as error:
        if isinstance(error, SystemExit):  # argparse has printed what is wrong
            sys.stdout.flush()
            raise SystemExit(error.code or (EXIT_USER_ERROR if streams.failure_of_output() else 0)) from None
        rank = launched_rank()  # an elastic run may have given it another
        code, message = _explain_failure(error, rank)
    end_rank(code, message)
    return code


def _check_encoding() -> None:
    """Refuse a locale in which the name of a file is different text than on other hosts, or no text at all."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UserError(f"names of files are read as {encoding}; expected: UTF-8; set LC_ALL=C.UTF-8 or PYTHONUTF8=1")


def _explain_failure(error: BaseException, rank: int) -> tuple[int, str]:
    """Return the exit code and the message of an error, after telling the other ranks."""
    if cause := failure_elsewhere(error):
        return EXIT_PEER_FAILED, stopping_message(rank, cause)
    if isinstance(error, KeyboardInterrupt):
        code, reason, message = EXIT_INTERRUPTED, "interrupted", ": ".join(["interrupted", *map(str, error.args)])
    elif isinstance(error, UserError) or is_disk_error(error) or _is_not_installed(error):
        code, reason = EXIT_USER_ERROR, _user_message(error)
        message = "\n".join(f"error: {printable(line)}" for line in reason.splitlines())
    else:
        code, reason = 1, "".join(traceback.format_exception_only(error)).strip()
        message = "".join(traceback.format_exception(error)).strip()
    tell_failure(reason, final=code != 1)
    return code, message


def _is_not_installed(error: BaseException) -> bool:
    return isinstance(error, ModuleNotFoundError) and not (error.name or "tfinpaint").startswith("tfinpaint")


def _user_message(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} cannot be imported by {sys.executable}; {startup.how_to_install()}"
    if isinstance(error, OSError):
        return f"{error.filename or 'writing'}: {explain_os_error(error)}, then run the same command again"
    return shorten_paths(str(error))


def log_to_stdout(rank: int) -> None:
    """Log to standard output: everything on rank 0, only warnings on the other ranks."""
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(message)s" if rank == 0 else f"rank {rank}: %(message)s",
        handlers=[streams.CurrentStdout()],
        force=True,
    )
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.ERROR)
