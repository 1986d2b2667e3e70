"""Reading a command line and the configuration that it names, with words for what is none of a command's arguments."""

from __future__ import annotations

import argparse
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tfinpaint.checkpoint.find import find_checkpoint
from tfinpaint.config.checks import Command, check_command
from tfinpaint.config.explanations import SUFFIXES
from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import Config, ConfigError
from tfinpaint.config.suggestions import suggest_option
from tfinpaint.config.transforms import Transform
from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.parse import input_size, read_network

log = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, told like every other error of a command."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError with what is wrong, and where the options are listed."""
        _, unknown, rest = message.partition("unrecognized arguments: ")
        if unknown and rest.startswith("-"):
            raise UserError(_unknown_option(self, rest.split()[0], rest.split()[1:]))
        raise UserError(f"{message}; `{self.prog} --help` tells what there is")


def add_config_options(parser: argparse.ArgumentParser, config_help: str) -> None:
    """Add --config and --set, which `parse` completes."""
    parser.add_argument("--config", help=config_help)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the configuration, such as --set optimizer.learning_rate=1e-4; may be repeated",
    )  # fmt: skip


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments of a command that takes a configuration.

    The file may also be given without --config, or apart from it as in `--config= ./config.json`.

    Returns:
        What the parser found; `config` is a Path or None.

    Raises:
        UserError: an option or an argument that the command does not have; the line says what was probably meant.
    """
    parsed, rest = parser.parse_known_args(arguments)
    options = [each for each in rest if each.startswith("-") and each != "-"]
    words = [each for each in rest if each not in options]
    if options:
        raise UserError(_unknown_option(parser, options[0], rest[rest.index(options[0]) + 1 :]))
    _check_overrides(parsed.overrides, words)
    if not parsed.config and len(words) == 1:
        parsed.config, words = words[0], []
    if words:
        raise UserError(_unknown_word(words[0], bool(parsed.config)))
    if parsed.config == "":
        raise UserError("--config is empty: write the file behind it, such as --config pretrain.yaml")
    parsed.config = Path(parsed.config) if parsed.config else None
    return parsed


def _unknown_option(parser: argparse.ArgumentParser, given: str, after: Sequence[str]) -> str:
    """What to say of an option that there is not: a misspelt one, or a key of the configuration.

    Args:
        after: the arguments behind it that the parser did not take, of which the first may be its value.
    """
    name, equals, value = given.partition("=")
    known = [option for action in parser._actions for option in action.option_strings]
    has_config = "--set" in known
    value = value if equals else after[0] if after and not after[0].startswith("-") else "VALUE"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if near and name != near[0]:
        return f"{name}: there is no such option; did you mean {near[0]}?"
    if has_config and (key := suggest_option(name)):
        return f"{name}: there is no such option; keys of the configuration are set by --set {key}={value}"
    return f"{name}: there is no such option; `{parser.prog} --help` lists them"


def _check_overrides(overrides: Sequence[str], words: Sequence[str]) -> None:
    """Refuse `--set KEY VALUE` and `--set KEY = VALUE`, where the value is a word of its own."""
    for override in overrides:
        key, _, value = override.partition("=")
        following = [word for word in words if not word.endswith(SUFFIXES)]
        values = [word.removeprefix("=") for word in following if word != "="]
        if not value and values:
            given = " ".join([override, *following])
            raise ConfigError(f"--set {given}: expected KEY=VALUE without blanks; write --set {key}={values[0]}")


def _unknown_word(word: str, has_config: bool) -> str:
    if "=" in word:
        return f"{word}: expected an option; keys of the configuration are set by --set {word}"
    if has_config:
        return f"{word}: unexpected; --config takes one file, and every other value belongs to an option"
    return f"{word}: unexpected; a single file is the configuration, as after --config"


def load_checked(
    path: Path,
    overrides: Sequence[str],
    task: Command,
    ranks: int,
    workdir: Path | None = None,
    *,
    resumes: bool = False,
) -> Config:
    """Read a configuration and refuse what cannot work for a task on this many ranks.

    Where no step gives the images a size, the network file's input does.

    Args:
        resumes: as `check_named_checkpoints` takes it.

    Raises:
        UserError: the configuration cannot be used; with the file's name.
    """
    config = load_config(path, overrides, workdir)
    try:
        config = check_command(_sized_by_network(config), task, ranks)
        check_named_checkpoints(config, resumes=resumes)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def check_named_checkpoints(config: Config, *, resumes: bool = False) -> None:
    """Refuse a configuration that names checkpoints which are not there, or which the run itself would delete.

    Args:
        resumes: the run continues from its own checkpoints; `checkpoints.load` is then not looked for.

    Raises:
        ConfigError: one line that names the key, the path and what to do.
    """
    load, perceptual, save = config.checkpoints.load, config.loss.perceptual, config.checkpoints.save
    if load and not (resumes and config.data.input_path):
        try:
            find_checkpoint(load, "checkpoints.load")
        except UserError as error:
            instead = ", or --set checkpoints.load=null to train from scratch" if config.data.input_path else ""
            raise ConfigError(f"{error}; name another, run pretrain first{instead}") from None
    if perceptual is None:
        return
    try:
        encoder = find_checkpoint(perceptual.encoder, "loss.perceptual.encoder").path
    except UserError as error:
        raise ConfigError(f"{error}; name another, or --set loss.perceptual=null to train without it") from None
    if save and encoder.is_relative_to(save):
        raise ConfigError(
            f"loss.perceptual.encoder: {encoder} lies in checkpoints.save, where this run deletes what is old; use "
            "another --workdir"
        )


def _sized_by_network(config: Config) -> Config:
    """Add a resize to the network's input where the steps leave images of many sizes, as rmldnn files may."""
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
