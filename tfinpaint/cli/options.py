"""Read the options of a command together with the configuration that they name, and check both."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfinpaint.checkpoint.find import find_checkpoint, find_weights, list_checkpoints
from tfinpaint.cli.arguments import add_config_options, make_parser, parse_arguments
from tfinpaint.config.checks import Command, check_command, with_defaults
from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.config.transforms import Transform
from tfinpaint.distributed import rendezvous
from tfinpaint.distributed.environment import launched_local_size, launched_size
from tfinpaint.distributed.start_ranks import HOSTS, Placement, read_placement
from tfinpaint.errors import UserError
from tfinpaint.layout import ENCODER_WEIGHTS, RESOLVED_CONFIG
from tfinpaint.models.keras_json.parse import input_size, read_network
from tfinpaint.storage.write_errors import explain_os_error, is_disk_error
from tfinpaint.system.paths import display_path, typed_path
from tfinpaint.system.subprocesses import CONTINUED_BY

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The command line of `pretrain` and `classify`, with its configuration read and checked.

    Attributes:
        placement: of the ranks that this process is to start, instead of running the command itself; None for none.
        call: the call of the Python interface that stands in place of a command line, as text; "" for a command. The
            process is then a program of the user's, which the run does not end.
        quiet: print no progress.
    """

    config: Config
    resume: bool
    overwrite: bool
    allowed_changes: tuple[str, ...] = ()
    task: Command = "pretrain"
    placement: Placement | None = None
    call: str = ""
    quiet: bool = False


def parse_options(task: Command, arguments: Sequence[str] | None) -> Options:
    """Read the command line and the configuration, before anything slow is imported.

    Raises:
        UserError: the configuration cannot be used.
    """
    parsed = parse_arguments(_make_parser(task), arguments)
    placement = read_placement(parsed.ranks, parsed.hosts)
    if parsed.app:
        raise UserError(
            f"--app={parsed.app} is an application of rmldnn that is not supported; supported are inpainting and "
            "image to image (tfinpaint.pretrain) and classification (tfinpaint.classify)"
        )
    path = _config_file(parsed, task)
    if parsed.allowed_changes and not parsed.resume:
        raise UserError("--allow-change needs --resume")
    ranks = placement.ranks if placement else launched_size()
    if rendezvous.is_elastic():
        ranks = 1  # an elastic run checks each number of ranks that it has
    with _silent_logging() if placement else contextlib.nullcontext():  # rank 0 reads the configuration again
        config = load_checked(path, parsed.overrides, task, ranks, parsed.workdir, resumes=parsed.resume)
    return Options(config, parsed.resume, parsed.overwrite, tuple(parsed.allowed_changes), task, placement)


def _make_parser(task: Command) -> argparse.ArgumentParser:
    parser = make_parser(task)
    add_config_options(parser, "YAML or JSON file; optional with --resume --workdir FOLDER")
    parser.add_argument("--app", help=argparse.SUPPRESS)  # an option of rmldnn
    parser.add_argument(
        "--workdir", type=Path, metavar="FOLDER", help="run folder (default: workdir of the configuration)"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument(
        "--resume",
        action="store_true",
        help="resume from the run folder's newest checkpoint, or start if there is none",
    )
    existing.add_argument(
        "--overwrite", action="store_true", help="start from scratch in a run folder that holds a run"
    )
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="KEY", dest="allowed_changes",
        help="with --resume: allow a key of the configuration, or a whole section, to differ; may be repeated",
    )  # fmt: skip
    started = parser.add_mutually_exclusive_group()
    started.add_argument("--ranks", type=int, metavar="N", help="start N processes on this host that train as one")
    started.add_argument(
        "--hosts", metavar="HOST:N,...",
        help="start processes on several hosts, such as node1:4,node2:4; the first is this one, the others are reached "
        "by ssh",
    )  # fmt: skip
    return parser


def _config_file(parsed: argparse.Namespace, task: Command) -> Path:
    """Return the configuration file that the command line names, or that of the run to resume."""
    if parsed.config is not None:
        return parsed.config
    if not (parsed.resume and parsed.workdir):
        raise UserError(f"--config FILE is missing, such as --config configs/demo/{task}.yaml")
    path = parsed.workdir / RESOLVED_CONFIG
    if not path.exists():
        raise UserError(f"{parsed.workdir}: holds no run to resume ({path.name} is missing); give --config FILE")
    return path


@contextlib.contextmanager
def _silent_logging() -> Iterator[None]:
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def resume_command(task: Command, workdir: Path, placement: Placement | None = None) -> str:
    """Return the command that resumes a run on as many ranks as there are now, or as this process has started.

    A run that is a stage of a project is resumed by the command that runs all stages. Ranks of an elastic run, and
    those that a launcher of the user's has started on several hosts, need that launcher and its options, which are not
    known here.
    """
    if command := os.environ.get(CONTINUED_BY):
        return command
    ranks, hosts = launched_size(), os.environ.get(HOSTS)
    if placement:
        ranks, hosts = placement.ranks, None if placement.is_local else placement.hosts
    elif rendezvous.is_elastic() or (ranks > launched_local_size() and not hosts):
        launched = f"(launcher and its options as before) python -m tfinpaint.{task}"
        return f"{launched} --resume --workdir {typed_path(workdir)}"
    several = f" --hosts {hosts}" if hosts else f" --ranks {ranks}" if ranks > 1 else ""
    return f"tfinpaint {task}{several} --resume --workdir {typed_path(workdir)}"


@contextlib.contextmanager
def explaining_interrupts(options: Options) -> Iterator[None]:
    """Add to an interrupt what of the run is saved, and how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(saved_so_far(options.task, options.config, options.placement)) from None


@contextlib.contextmanager
def explaining_ends(options: Options) -> Iterator[None]:
    """Add to an interrupt, and to an error of a disk, what of the run is saved, and how to resume it.

    Raises:
        UserError: A file could not be written for a reason that the user can remove.
    """
    try:
        with explaining_interrupts(options):
            yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        saved = saved_so_far(options.task, options.config, options.placement)
        raise UserError(f"{error.filename or 'writing'}: {explain_os_error(error)}; {saved}") from None


def saved_so_far(task: Command, config: Config, placement: Placement | None = None) -> str:
    """Return what of a run is saved, and the command that resumes it."""
    workdir, saved = config.workdir, config.checkpoints.save
    newest = next(reversed(list_checkpoints(saved)), None) if saved else None
    if workdir is None or not (workdir / RESOLVED_CONFIG).exists():
        again = os.environ.get(CONTINUED_BY)
        how = f"start the run again with: {again}" if again else "the same command starts the run again"
        return f"nothing has been saved yet; {how}"
    if config.data.input_path is None:  # only a training can be resumed
        return "nothing has been saved; the same command with --overwrite starts the evaluation again"
    if newest is None:
        return f"nothing has been saved yet; start the run again with: {resume_command(task, workdir, placement)}"
    return f"the newest checkpoint is {display_path(newest)}; resume with: {resume_command(task, workdir, placement)}"


def load_resolved(path: Path, overrides: Sequence[str], task: Command, workdir: Path | None = None) -> Config:
    """Read a configuration as a command does, with the defaults of the command.

    If no transform resizes the images, they are resized to the input of the network file.

    Raises:
        UserError: it is not a configuration; the message names the file.
    """
    return _resolve(load_config(path, overrides, workdir), str(path), task)


def _resolve(config: Config, source: str, task: Command) -> Config:
    try:
        return with_defaults(_sized_by_network(config), task)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def load_checked(
    path: Path,
    overrides: Sequence[str],
    task: Command,
    ranks: int,
    workdir: Path | None = None,
    *,
    resumes: bool = False,
    expected: Sequence[Path] = (),
) -> Config:
    """Read a configuration, as `load_resolved` does, and check it for a task on this many ranks.

    Args:
        resumes: True if the run resumes from its own checkpoints.
        expected: folders that another command will make; images and weights in them may be missing.

    Raises:
        UserError: the configuration cannot be used; the message names the file.
    """
    config = load_config(path, overrides, workdir)
    return check_loaded(config, str(path), task, ranks, resumes=resumes, expected=expected)


def check_loaded(
    config: Config,
    source: str,
    task: Command,
    ranks: int,
    *,
    resumes: bool = False,
    expected: Sequence[Path] = (),
) -> Config:
    """Return a configuration with the defaults of a task, after checking it for the task on this many ranks.

    Args:
        source: where the configuration comes from, for messages.
        resumes: True if the run resumes from its own checkpoints.
        expected: folders that another command will make; images and weights in them may be missing.

    Raises:
        UserError: the configuration cannot be used; the message names the source.
    """
    config = _resolve(config, source, task)
    try:
        check_command(config, task, ranks, expected)
        if config.checkpoints.load not in expected:
            check_named_checkpoints(config, resumes=resumes)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return config


def check_named_checkpoints(config: Config, *, resumes: bool = False) -> None:
    """Refuse a configuration that names checkpoints which do not exist, or which the run itself would delete.

    Args:
        resumes: True if the run resumes from its own checkpoints; `checkpoints.load` need not exist then.

    Raises:
        ConfigError: one line that names the key, the path and what to do.
    """
    load, perceptual, save = config.checkpoints.load, config.loss.perceptual, config.checkpoints.save
    if load and not (resumes and config.data.input_path):
        try:
            find_weights(load, "checkpoints.load")
        except UserError as error:
            instead = ", or --set checkpoints.load=null to train from scratch" if config.data.input_path else ""
            raise ConfigError(f"{error}; run `tfinpaint pretrain` first, name another run{instead}") from None
    if perceptual is None:
        return
    try:
        encoder = find_checkpoint(perceptual.encoder, "loss.perceptual.encoder", (ENCODER_WEIGHTS,)).path
    except UserError as error:
        raise ConfigError(f"{error}; name another, or --set loss.perceptual=null to train without it") from None
    if save and encoder.is_relative_to(save):
        raise ConfigError(
            f"loss.perceptual.encoder: {encoder} lies in checkpoints.save, where this run deletes old checkpoints; "
            "use another --workdir"
        )


def _sized_by_network(config: Config) -> Config:
    """Add a resize to the network's input if the transforms leave images of many sizes, as rmldnn files may."""
    steps, layers = config.data.transforms, config.layers
    if layers is None or config.input_shape[0] is not None or (isinstance(layers, Path) and not layers.is_file()):
        return config
    size = input_size(read_network(layers))
    if size is None or any(step.kind == "jitter_crop" for step in config.data.input_transforms):
        return config
    height, width = size
    crops = [place for place, step in enumerate(steps, start=1) if step.kind == "jitter_crop"]
    place = max(crops, default=0)
    resize = Transform.model_validate({"resize": [width, height]})
    log.info(f"data.transforms sets no size: images are resized to {width} x {height} pixels, the network's input")
    data = config.data.model_copy(update={"transforms": [*steps[:place], resize, *steps[place:]]})
    return config.model_copy(update={"data": data})
