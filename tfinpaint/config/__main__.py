"""List the keys of a configuration, check or print a configuration file, or print the schema. Imports no TensorFlow.

usage: tfinpaint config keys [PATTERN]
       tfinpaint config check FILE [--for pretrain|classify] [--ranks N] [--set KEY=VALUE]
       tfinpaint config print FILE [--for pretrain|classify] [--set KEY=VALUE]
       tfinpaint config schema
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import get_args

from tfinpaint.cli.arguments import Parser, add_config_options, make_parser, parse_arguments, whole_number
from tfinpaint.cli.command import run_command
from tfinpaint.cli.options import load_checked, load_resolved
from tfinpaint.cli.tables import text_width
from tfinpaint.config.checks import Command
from tfinpaint.config.json_schema import json_schema
from tfinpaint.config.keys import Key, matching_keys
from tfinpaint.config.loader import dump_config, load_config
from tfinpaint.config.schema import Config
from tfinpaint.config.suggestions import suggest_option
from tfinpaint.errors import UserError
from tfinpaint.project.stages import finished_before, made_before
from tfinpaint.system.paths import display_path, typed_path
from tfinpaint.system.wording import counted


def command_of(config: Config) -> Command:
    """Return the command that a configuration is for: by its targets, or else by what only `pretrain` takes."""
    data = config.data
    if data.target_type is not None:
        return "classify" if data.target_type == "labels" else "pretrain"
    return "pretrain" if config.mask or data.target_path or data.views > 1 else "classify"


def describe_key(key: Key, width: int) -> str:
    """Return a key with its values, its default and its description, in lines of this many characters."""
    default = f"; {'' if key.default == 'required' else 'default: '}{key.default}" if key.default else ""
    head = f"{key.name}: {key.values.replace('`', '')}{default}"
    return "\n".join(
        [
            *textwrap.wrap(head, width, subsequent_indent="  "),
            *textwrap.wrap(key.meaning, width, initial_indent="  ", subsequent_indent="  "),
        ]
    )


def show_keys(pattern: str) -> None:
    """Print the keys whose names match a pattern.

    Raises:
        UserError: There is none.
    """
    found = matching_keys(pattern)
    if not found:
        meant = suggest_option(pattern)
        hint = f"did you mean {meant}?" if meant else "`tfinpaint config keys` lists all keys"
        raise UserError(f"{pattern}: no key of the configuration has such a name; {hint}")
    print("\n".join(describe_key(key, text_width()) for key in found))


def check(options: argparse.Namespace) -> None:
    """Check a configuration as its command does before it trains.

    Raises:
        UserError: It cannot be used; the message is that of the command.
    """
    task = options.task or command_of(load_config(options.config, options.overrides))
    missing = made_before(options.config)
    load_checked(options.config, options.overrides, task, options.ranks, expected=list(missing))
    ranks = counted(options.ranks, "rank")
    overrides = "".join(f" --set {shlex.quote(override)}" for override in options.overrides)
    several = f" --ranks {options.ranks}" if options.ranks > 1 else ""
    start = f"tfinpaint {task}{several} --config {shlex.quote(str(options.config))}{overrides}"
    print(f"{options.config}: no error was found, for {task} on {ranks}; images and weights are read when it starts")
    if not missing:
        finished = finished_before(options.config)
        print(f"It is finished, in {display_path(finished)}" if finished else f"Start it with: {start}")
        return
    first = "Make this first:" if len(missing) == 1 else "Make these first, in this order:"
    print(f"Before it can start, there must be {' and '.join(map(display_path, missing))}. {first}")
    print("\n".join(f"  {command}" for command in missing.values()))
    print(f"Then start it with:\n  {start}")
    print(f"Or run all stages with:\n  tfinpaint run{several} {typed_path(options.config.parent)}")


def print_resolved(options: argparse.Namespace) -> None:
    """Print a configuration with every default spelled out, as YAML that can be used in its place.

    Raises:
        UserError: It is not a configuration.
    """
    task = options.task or command_of(load_config(options.config, options.overrides))
    config = load_resolved(options.config, options.overrides, task)
    print(f"# {display_path(options.config)} as {task} reads it, with all defaults and absolute paths")
    print(dump_config(config), end="")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser("config")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    keys = actions.add_parser("keys", help="list the keys with their values, defaults and descriptions")
    keys.add_argument(
        "pattern", nargs="?", default="", metavar="PATTERN",
        help="part of a name, such as batch, or a shell pattern, such as 'optimizer.*' (default: all keys)",
    )  # fmt: skip
    both = {
        "check": actions.add_parser(
            "check", usage="%(prog)s FILE [--for COMMAND] [--ranks N] [--set KEY=VALUE]",
            help="name the first error of a file, as its command does",
        ),
        "print": actions.add_parser(
            "print", usage="%(prog)s FILE [--for COMMAND] [--set KEY=VALUE]",
            help="print a file with all defaults, as a run resolves it",
        ),
    }  # fmt: skip
    for action in both.values():
        add_config_options(action, "YAML or JSON file; --config may be omitted")
        action.add_argument(
            "--for", dest="task", choices=get_args(Command), metavar="COMMAND",
            help="pretrain or classify (default: the one that its targets are for)",
        )  # fmt: skip
    actions.add_parser("schema", help="print the JSON Schema of a configuration, for editors")
    both["check"].add_argument(
        "--ranks", type=whole_number(1), default=1, metavar="N", help="number of ranks (default: 1)"
    )
    if given[:1] and given[0] in both:
        parsed = parse_arguments(both[given[0]], given[1:])
        parsed.action = given[0]
        if parsed.config is None:
            raise UserError(f"FILE is missing, such as `tfinpaint config {given[0]} configs/demo/pretrain.yaml`")
        return parsed
    return parser.parse_args(given)


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parsed = _parse(arguments)
        if parsed.action == "keys":
            show_keys(parsed.pattern)
        elif parsed.action == "check":
            check(parsed)
        elif parsed.action == "schema":
            print(json.dumps(json_schema(), indent=2))
        else:
            print_resolved(parsed)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
