"""Compare programs fairly: each in a process of its own, in turns, as ratios of neighbouring turns.

Every program of this folder that compares speeds uses this module. The process of a side prepares itself, takes one
turn that does not count, and then waits: only one side works at a time, and a noisy machine hits all of them alike.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

READY = "ready"


class Aim(NamedTuple):
    """A ratio of two sides, and what it should be.

    Attributes:
        above, below: names of the sides whose values are divided, turn by turn.
        factor: of the denominator.
        wanted: such as ">= 1.5"; "" for a ratio that is only reported.
    """

    above: str
    below: str
    wanted: str = ""
    factor: float = 1


def serve_turns(turn: Callable[[], float]) -> None:
    """Take a turn for every line of the standard input, and print its value. The process of a side calls this."""
    output = sys.stdout
    sys.stdout = sys.stderr  # what libraries print does not mix with the values
    turn()  # compiles, fills caches
    print(READY, file=output, flush=True)
    for _ in sys.stdin:
        print(turn(), file=output, flush=True)


def take_turns(sides: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Start the process of each side, and let them take turns.

    Args:
        sides: name -> command of a program that calls `serve_turns`.
        rounds: number of turns of each side.

    Returns:
        The values of each side, in the order of the rounds. A side whose process does not get ready is left out, and a
        line on the standard error says so.
    """
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(_process(command)) for name, command in sides.items()}
        for name, process in list(running.items()):
            if (line := _read(process)) != READY:
                print(f"{name}: left out, because its process ended: {' '.join(sides[name])}", file=sys.stderr)
                del running[name]
        values: dict[str, list[float]] = {name: [] for name in running}
        for number in range(rounds):
            for name, process in running.items():
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
                if not (line := _read(process)):
                    sys.exit(f"{name}: its process ended in round {number + 1}: {' '.join(sides[name])}")
                values[name].append(float(line))
    return values


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def print_comparison(
    title: str, settings: Mapping[str, Any], unit: str, values: Mapping[str, Sequence[float]], aims: Sequence[Aim]
) -> None:
    """Print medians, ranges and ratios for people, then the same with all values as one line of JSON.

    Args:
        title: what is compared.
        settings: of the measurement, such as the size of the images.
        unit: of the values.
        values: side -> its values, in the order of the rounds.
        aims: the ratios to report; those of sides without values are left out.
    """
    print(f"{title} ({', '.join(f'{name} {value}' for name, value in settings.items())})")
    for name, side in values.items():
        print(f"  {name:34} {_with_range(side)} {unit}")
    ratios = []
    for aim in aims:
        if aim.above in values and aim.below in values:
            each = [a / (aim.factor * b) for a, b in zip(values[aim.above], values[aim.below], strict=True)]
            below = aim.below if aim.factor == 1 else f"{aim.factor:g} x {aim.below}"
            ratios.append({"ratio": f"{aim.above} / {below}", "values": each, "wanted": aim.wanted})
            print(f"  {aim.above} / {below}: {_with_range(each)}   {aim.wanted}")
    whole = {"title": title, "settings": dict(settings), "unit": unit, "values": dict(values), "ratios": ratios}
    print(json.dumps(whole), flush=True)


def _with_range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):10.4g}  ({min(values):.4g} to {max(values):.4g})"
