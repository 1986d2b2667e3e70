"""Describe this machine and installation, and try whether ranks train together here under every launcher.

usage: python -m tfinpaint.doctor

Exits with 0 if one process trains and, if Horovod is installed, several ranks do under every launcher that it was built
for; otherwise with 1, and prints a remedy for each problem. The lines can be pasted into a bug report.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.distributed.environment import launched_rank, threads_per_rank, was_launched
from tfinpaint.errors import UserError
from tfinpaint.system import diagnosis, installation
from tfinpaint.system.diagnosis import Finding
from tfinpaint.system.hardware import Machine, read_hardware
from tfinpaint.system.wording import counted

_LAUNCHER_VARIABLE = re.compile(r"(OMPI_COMM_WORLD|HOROVOD|PMIX?)_(LOCAL_)?(RANK|SIZE)|SLURM_(PROCID|STEP_NUM_TASKS)")


def launcher(variables: Mapping[str, str]) -> str:
    """Return the variables that the launcher of this process has set, or "none"."""
    found = sorted(name for name in variables if _LAUNCHER_VARIABLE.fullmatch(name))
    return " ".join(f"{name}={variables[name]}" for name in found) or "none"


def ranks_here(machine: Machine) -> str:
    """Return how many ranks are sensible on the machine, and why."""
    ranks = diagnosis.sensible_ranks(machine)
    threads = threads_per_rank(ranks)
    memory = diagnosis.readable_size(diagnosis.MEMORY_PER_RANK)
    why = "one per GPU" if machine.gpus else f"a core and {memory} of memory each"
    return f"up to {ranks} ({why}); {counted(threads, 'thread')} each with {ranks}"


def diagnose(console: Console, ranks: int) -> bool:
    """Print the diagnosis, each line as soon as it is known; return True if nothing keeps training from working.

    Args:
        ranks: how many to try under each launcher.
    """

    def show(label: str, value: str, width: int = 15, style: str = "bold") -> None:
        console.print(f"[{style}]{escape(label):{width}}[/]{escape(value)}", soft_wrap=True)

    console.print(
        "This takes one to several minutes: it imports TensorFlow, and tries every way to start a training.",
        soft_wrap=True,
    )
    machine = read_hardware()
    for label, value in diagnosis.machine_facts(machine):
        show(label, value)
    show("launcher", launcher(os.environ))
    show("ranks here", ranks_here(machine))
    with console.status("importing TensorFlow and Horovod"):
        imported = installation.imported()
    for label, value in diagnosis.installed_versions(imported):
        show(label, value)
    findings = [*diagnosis.find_problems(imported), *diagnosis.find_slowdowns(machine, imported)]
    can_start = imported.gpus is not None and not was_launched()
    ways = list(diagnosis.ways_to_start(imported.parts, ranks)) if can_start else []
    for way in ways:
        begin = time.monotonic()
        with console.status(way.name):
            why = diagnosis.try_way(way)
        width = max(len(other.name) for other in ways) + 2
        show(way.name, f"{why or 'works'} ({time.monotonic() - begin:.0f} s)", width, "red" if why else "green")
        if why:
            findings.append(Finding(f"{way.name}: {why}", f"See all of its output: {shlex.join(way.command)}"))
    if was_launched():
        show("ranks", "not tried, because a launcher started this process: run the doctor without one")
    for finding in findings:
        console.print(f"{'note' if finding.is_note else 'problem':8} {escape(finding.what)}", soft_wrap=True)
        console.print(f"         {escape(finding.remedy)}", soft_wrap=True)
    return all(finding.is_note for finding in findings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if nothing keeps training from working, 1 otherwise, 2 for a wrong option."""
    healthy = True

    def command() -> None:
        nonlocal healthy
        parser = make_parser("doctor")
        parser.add_argument("--ranks", type=int, default=2, metavar="N", help="how many ranks to try (default: 2)")
        parsed = parser.parse_args(arguments)
        if parsed.ranks < 2:
            raise UserError(f"--ranks {parsed.ranks}: expected 2 or more; one process is tried in any case")
        if launched_rank() == 0:
            healthy = diagnose(Console(highlight=False), parsed.ranks)

    return run_command(command) or int(not healthy)


if __name__ == "__main__":
    sys.exit(main())
