"""What all commands share: options, logging, and how a failure ends the process on every rank."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.cli import arguments as command_line
from tfinpaint.cli.arguments import parse_arguments
from tfinpaint.config.checks import Command
from tfinpaint.config.schema import Config
from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.environment import launched_rank, launched_size
from tfinpaint.distributed.failures import failure_elsewhere, tell_failure
from tfinpaint.distributed.heartbeat import EXIT_PEER_FAILED, stopping_message
from tfinpaint.distributed.launch import leave_ranks
from tfinpaint.errors import StoppedError, UserError
from tfinpaint.layout import RESOLVED_CONFIG
from tfinpaint.storage.write_errors import explain_os_error, is_disk_error
from tfinpaint.system import startup, streams
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# What `--help` says of each command; not its module's docstring, which `python -OO` leaves out.
PURPOSES = {
    "prepare": "Split a folder or archive of class folders into training/ and testing/, or pack images into records.",
    "preview": "Look at what the network will be given, before any training: original, mask, input and target.",
    "pretrain": "Pretrain an encoder without labels: erase a part of each image and learn to restore it.",
    "predict": "Restore a photo where a mask is white, with a network that was trained by `tfinpaint pretrain`.",
    "classify": "Train a classifier of images in class folders, from a pretrained encoder or from scratch.",
    "compare": "Set finished runs side by side: a table on the terminal and one report of them all.",
    "replay": "Look into the batch at which a run stopped as not finite: where in the network values are not finite.",
    "canary": "Train a two-layer model on different data per rank and check that the ranks end with the same weights.",
    "doctor": "Tell what is installed on what machine, and whether ranks find each other here under every launcher.",
}

# TensorFlow reads this when it is imported; its start-up notices bury what a user should see.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@dataclass(frozen=True)
class Options:
    """The command line of `pretrain` and `classify`, with its configuration read and checked."""

    config: Config
    resume: bool
    overwrite: bool
    allowed_changes: tuple[str, ...] = ()
    task: Command = "pretrain"


def make_parser(command: str) -> command_line.Parser:
    """Return a parser without options that tells the command's purpose."""
    return command_line.Parser(prog=f"tfinpaint {command}", description=PURPOSES[command])


def parse_options(task: Command, arguments: Sequence[str] | None) -> Options:
    """Read the command line and the configuration; nothing slow has been imported yet.

    Raises:
        UserError: the configuration cannot be used.
    """
    parser = make_parser(task)
    command_line.add_config_options(parser, "YAML or JSON file; optional with --resume --workdir FOLDER")
    parser.add_argument("--app", help=argparse.SUPPRESS)  # the seed tool's option
    parser.add_argument("--workdir", type=Path, help="run folder; overrides the configuration's workdir")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume", action="store_true", help="go on from the run folder's newest checkpoint, or start if there is none"
    )
    existing.add_argument("--overwrite", action="store_true", help="start anew in a run folder that holds a run")
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="KEY", dest="allowed_changes",
        help="with --resume: let a key of the configuration, or a whole section, differ from before; may be repeated",
    )  # fmt: skip
    parsed = parse_arguments(parser, arguments)
    if parsed.app:
        raise UserError(
            f"--app={parsed.app} is an application of the seed tool that is not supported; there are inpainting and "
            "image to image (tfinpaint.pretrain) and classification (tfinpaint.classify)"
        )
    path = parsed.config
    if path is None:
        if not (parsed.resume and parsed.workdir):
            raise UserError(f"--config FILE is missing, such as --config configs/demo/{task}.yaml")
        path = parsed.workdir / RESOLVED_CONFIG
        if not path.exists():
            raise UserError(
                f"{parsed.workdir}: holds no run to go on with ({path.name} is not there); give --config FILE"
            )
    if parsed.allowed_changes and not parsed.resume:
        raise UserError("--allow-change is for --resume")
    ranks = 1 if rendezvous.is_elastic() else launched_size()  # an elastic run looks at each number that it has
    config = command_line.load_checked(path, parsed.overrides, task, ranks, parsed.workdir, resumes=parsed.resume)
    return Options(config, parsed.resume, parsed.overwrite, tuple(parsed.allowed_changes), task)


def resume_command(task: Command, workdir: Path) -> str:
    """Return the command that resumes a run; under a launcher it goes behind that."""
    return f"tfinpaint {task} --resume --workdir {shlex.quote(display_path(workdir))}"


@contextlib.contextmanager
def explaining_interrupts(options: Options) -> Iterator[None]:
    """Have an interrupt of a run say what of it is saved, and how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_saved_so_far(options)) from None


def _saved_so_far(options: Options) -> str:
    workdir, saved = options.config.workdir, options.config.checkpoints.save
    newest = next(reversed(list_checkpoints(saved)), None) if saved else None
    if newest is None or workdir is None:
        return "nothing has been saved yet"
    return f"the newest checkpoint is {display_path(newest)}; resume with: {resume_command(options.task, workdir)}"


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Within it the root logger is this program's; afterwards it has the handlers and the level of before."""
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
    """Run a command; turn a failure into one clear line and an exit code on every rank.

    Args:
        needs_output: what the command prints is what it is for, and it fails where that cannot be written. A reader
            that goes away is no failure.

    Returns:
        0, also for a run that was told to stop and is saved. Where this is the only rank: 2 for a UserError, 130 for an
        interrupt, 1 for anything unexpected. With several ranks a failing process ends here at once, after telling the
        others, which end too, with exit code 3: waiting for them would wait for ever.
    """
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
        if isinstance(error, SystemExit):  # argparse has said what is wrong
            sys.stdout.flush()
            raise SystemExit(error.code or (EXIT_USER_ERROR if streams.failure_of_output() else 0)) from None
        rank = launched_rank()  # an elastic run may have given it another
        code, message = _explained(error, rank)
    if rank and code != EXIT_PEER_FAILED:
        # Rank 0 usually fails for the same reason and says so; its launcher then ends this process before it prints.
        time.sleep(2)
        message = f"rank {rank}: {message}"
    print(message, file=sys.stderr, flush=True)
    if launched_size() > 1:
        sys.stdout.flush()
        os._exit(code)
    return code


def _check_encoding() -> None:
    """Refuse a locale in which a file's name is other text than on other hosts, or no text at all."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UserError(f"names of files are read as {encoding}; expected: UTF-8; set LC_ALL=C.UTF-8 or PYTHONUTF8=1")


def _explained(error: BaseException, rank: int) -> tuple[int, str]:
    """(exit code, what to print) of an error; the other ranks are told."""
    if cause := failure_elsewhere(error):
        return EXIT_PEER_FAILED, stopping_message(rank, cause)
    if isinstance(error, KeyboardInterrupt):
        code, reason, message = EXIT_INTERRUPTED, "interrupted", ": ".join(["interrupted", *map(str, error.args)])
    elif isinstance(error, UserError) or is_disk_error(error) or _is_not_installed(error):
        code, reason = EXIT_USER_ERROR, _in_words(error)
        message = "\n".join(f"error: {line}" for line in reason.splitlines())
    else:
        code, reason = 1, "".join(traceback.format_exception_only(error)).strip()
        message = "".join(traceback.format_exception(error)).strip()
    tell_failure(reason, final=code != 1)
    return code, message


def _is_not_installed(error: BaseException) -> bool:
    return isinstance(error, ModuleNotFoundError) and not (error.name or "tfinpaint").startswith("tfinpaint")


def _in_words(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} cannot be imported by {sys.executable}; {startup.how_to_install()}"
    if isinstance(error, OSError):
        return f"{error.filename or 'writing'}: {explain_os_error(error)}, then go on with --resume"
    return str(error)


def log_to_stdout(rank: int) -> None:
    """Log what rank 0 does; of the others only warnings."""
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format="%(message)s" if rank == 0 else f"rank {rank}: %(message)s",
        handlers=[streams.CurrentStdout()],
        force=True,
    )
    for noisy in ("absl", "h5py", "matplotlib", "PIL", "tensorflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
