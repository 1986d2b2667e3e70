"""Read the arguments of a command, and say what was probably meant by those that it does not have."""

from __future__ import annotations

import argparse
import difflib
import logging
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tfinpaint.cli.purposes import EXAMPLES, PURPOSES
from tfinpaint.config.explanations import SUFFIXES
from tfinpaint.config.schema import ConfigError
from tfinpaint.config.suggestions import suggest_option
from tfinpaint.errors import UserError

log = logging.getLogger(__name__)

_WIDTH = 78  # characters of a line of help
_KINDS = {"int": "a whole number", "float": "a number"}
_CONTINUES = "the same command continues by itself"
_FROM_RUN = "name the run folder, which has its configuration, without an option"
_IN_FILES = "FOLDER has its configurations; change the key in pretrain.yaml or classify.yaml there"
# (command, option that it does not have) -> what to do instead.
_INSTEAD = {
    ("prepare", "--overwrite"): "nothing is overwritten here; remove the folder DEST yourself, or name another one",
    ("prepare", "--resume"): "the same command with --records resumes; without --records nothing is left behind",
    ("prepare", "--output"): "the folder to write is the second argument, DEST",
    ("preview", "--workdir"): "name the picture by --output FILE",
    ("compare", "--output"): "name the page by --report FILE",
    ("compare", "--workdir"): "name the run folders without an option",
    ("replay", "--config"): "name the run folder by --workdir",
    ("init", "--ranks"): "give it to tfinpaint run",
    ("init", "--set"): "change the key in the files that it writes",
    ("run", "--set"): _IN_FILES,
    ("run", "--config"): _IN_FILES,
    ("run", "--resume"): _CONTINUES,
    ("run", "--overwrite"): "to start a stage again, remove its run folder in FOLDER, such as FOLDER/classify",
    ("sweep", "--resume"): _CONTINUES,
    ("demo", "--resume"): _CONTINUES,
    ("demo", "--data"): "for your own images there are tfinpaint init IMAGES and tfinpaint run FOLDER",
    ("predict", "--config"): _FROM_RUN,
    ("predict", "--data"): "name the photos and folders of photos behind RUN",
    ("evaluate", "--config"): _FROM_RUN,
    ("export", "--config"): _FROM_RUN,
    ("probe", "--config"): _FROM_RUN,
    ("features", "--config"): _FROM_RUN,
    ("features", "--data"): "name the folder of images behind RUN",
}


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors as a UserError of one line, like every other error of a command."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError that says what is wrong and how to list the options."""
        _, unknown, rest = message.partition("unrecognized arguments: ")
        if unknown and rest.startswith("-"):
            raise UserError(_unknown_option(self, rest.split()[0], rest.split()[1:]))
        raise UserError(f"{_in_plain_words(message)}; `{self.prog} --help` lists the options")


def _in_plain_words(message: str) -> str:
    """Return a message of argparse without its terms."""
    if unexpected := re.match(r"unrecognized arguments: (\S+)", message):
        return f"{unexpected[1]}: is one argument too many"
    if missing := re.match(r"the following arguments are required: (.*)", message):
        return f"{missing[1]}: missing"
    message = re.sub(r"\bargument (?=\S+: |-)", "", message)
    message = message.replace("expected one argument", "a value is missing behind it")
    if invalid := re.match(r"(\S+): invalid (int|float) value: '(.*)'", message):
        return f"{invalid[1]} {invalid[3]}: expected {_KINDS[invalid[2]]}"
    if choice := re.match(r"(\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
        choices = re.findall(r"[\w-]+", choice[3])
        near = difflib.get_close_matches(choice[2], choices, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"{choice[1]} {choice[2]}: expected {', '.join(choices[:-1])} or {choices[-1]}{meant}"
    return message


def add_config_options(parser: argparse.ArgumentParser, config_help: str) -> None:
    """Add --config and --set, which `parse_arguments` reads."""
    parser.add_argument("--config", metavar="FILE", help=config_help)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the configuration, such as --set optimizer.learning_rate=1e-4; may be repeated; "
        "`tfinpaint config keys` lists the keys",
    )  # fmt: skip


def add_run_argument(parser: argparse.ArgumentParser, others: str = "or a checkpoint folder") -> None:
    """Add RUN, the run or project that a command uses.

    Args:
        others: what else may be named, as the end of a list.
    """
    parser.add_argument(
        "run", type=Path, metavar="RUN",
        help="run folder (its newest checkpoint; the best one where validation images have chosen it), RUN/best, "
        f"{others}; a project of `tfinpaint init` stands for its better classifier",
    )  # fmt: skip


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments of a command that takes a configuration.

    The file may also be given without --config, or behind a space as in `--config= ./config.json`.

    Returns:
        The parsed arguments; `config` is a Path or None.

    Raises:
        UserError: the command does not have an option or an argument; the message says what was probably meant.
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
    """Return the message for an unknown option, which may be misspelt or a key of the configuration.

    Args:
        after: the unknown arguments behind it, the first of which may be its value.
    """
    name, equals, value = given.partition("=")
    if instead := _INSTEAD.get((parser.prog.rpartition(" ")[2], name)):
        return f"{name}: there is no such option; {instead}"
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
    """Refuse `--set KEY VALUE` and `--set KEY = VALUE`, whose values are separate arguments."""
    for override in overrides:
        key, _, value = override.partition("=")
        following = [word for word in words if not word.endswith(SUFFIXES)]
        values = [word.removeprefix("=") for word in following if word != "="]
        if not value and values:
            given = " ".join([override, *following])
            raise ConfigError(f"--set {given}: expected KEY=VALUE without spaces; write --set {key}={values[0]}")


def _unknown_word(word: str, has_config: bool) -> str:
    if "=" in word:
        return f"{word}: expected an option; keys of the configuration are set by --set {word}"
    if has_config:
        return f"{word}: unexpected; --config takes one file, and every other value belongs to an option"
    return f"{word}: unexpected; a single file is the configuration, as after --config"


def percentage(text: str) -> float:
    """Return the value of an option that is a percentage above 0. Raises ArgumentTypeError."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 100:
        raise argparse.ArgumentTypeError(f"{text}: expected a percentage above 0, at most 100")
    return share


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a function that reads the value of an option: a whole number within these limits, both included.

    The function raises ArgumentTypeError. Limits are not negative.
    """

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            limits = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number, {limits}")
        return int(text)

    return read


def make_parser(command: str) -> Parser:
    """Return a parser without options whose help describes the command, with an example and what to do next."""
    example, following = EXAMPLES[command]
    following = textwrap.fill(following, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return Parser(
        prog=f"tfinpaint {command}",
        description=textwrap.fill(PURPOSES[command], _WIDTH),
        epilog=f"example:\n  {example}\n\nnext:\n{following}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
