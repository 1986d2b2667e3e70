"""Look at a folder of images and write configurations that suit them.

usage: tfinpaint init my_photos
       tfinpaint init my_photos.zip runs/first --for gpu
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.layout import CLASSIFY_CONFIG, PRETRAIN_CONFIG
from tfinpaint.project.files import PROJECTS, Project, check_new, write_project
from tfinpaint.project.settings import (
    Settings,
    Target,
    choose_settings,
    estimate_disk,
    estimate_times,
    rough,
    time_basis,
)
from tfinpaint.project.stages import commands
from tfinpaint.project.survey import Survey, describe, survey_images
from tfinpaint.system import installation
from tfinpaint.system.hardware import Machine, read_hardware
from tfinpaint.system.paths import display_path, typed_path
from tfinpaint.system.wording import counted

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


def init(options: argparse.Namespace) -> None:
    """Write a project for the images that the options name, and say what it is and what comes next.

    Raises:
        UserError: The images cannot be used, or the folder is in use.
    """
    folder = options.folder or PROJECTS / _name_of(options.images)
    check_new(folder, options.images)
    survey = survey_images(options.images, skip_empty_classes=options.skip_empty_classes)
    print("\n".join(describe(survey)))
    machine = read_hardware()
    settings = choose_settings(survey, machine, options.target or _kind_of(machine))
    times, disk = estimate_times(settings, survey, machine), estimate_disk(settings, survey)
    project = write_project(folder, survey, settings, times, skip_empty_classes=options.skip_empty_classes)
    print("\n".join([*_outcome(folder, settings, machine, times, disk), *_next(folder, survey, project)]))


def _name_of(images: Path) -> str:
    name = images.resolve().name or "images"
    ending = next((ending for ending in _ARCHIVES if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)] or "images"


def _kind_of(machine: Machine) -> Target:
    """Return "gpu" if this machine has a GPU that the installed TensorFlow can use."""
    if machine.gpus and installation.version("tensorflow-cpu"):
        print(
            "This machine has a GPU, but TensorFlow is installed without support for it; to use it, run: "
            "TFINPAINT_EXTRA=gpu scripts/setup"
        )
        return "laptop"
    return "gpu" if machine.gpus else "laptop"


def _outcome(folder: Path, settings: Settings, machine: Machine, times: Mapping[str, float], disk: float) -> list[str]:
    """Return what was written, for which machine, how long it will take, and how much disk."""
    stages = ", ".join(f"{stage} {rough(seconds)}" for stage, seconds in times.items())
    total = sum(60 * max(1, round(seconds / 60)) for seconds in times.values())  # that of the numbers that are shown
    return [
        f"Settings for {'a GPU' if settings.target == 'gpu' else 'a laptop'} (this machine: {_describe(machine)}): "
        f"{settings.encoder}, images of {settings.side} x {settings.side} pixels",
        f"Time: about {rough(total)} ({stages}), {time_basis(settings)}",
        f"Disk: up to {disk / 1e9:.1f} GB for checkpoints; `checkpoints: {{keep: 1}}` makes it about a third less",
        f"Written into {display_path(folder)}, with comments, for you to change: "
        + (f"{PRETRAIN_CONFIG} and {CLASSIFY_CONFIG}" if len(times) > 1 else PRETRAIN_CONFIG),
    ]


def _next(folder: Path, survey: Survey, project: Project) -> list[str]:
    """Return the commands to type next."""
    lines = []
    if not survey.classes:
        lines.append(
            "There are no class folders, so there is no classifier: put the images of each class into a folder of its "
            "own for that"
        )
    lines += [
        "",
        "Next, all stages with one command, which continues where it was stopped:",
        f"  tfinpaint run {typed_path(folder)}",
        "or one after the other:",
    ]
    return [*lines, *(f"  {command}" for command in commands(folder, project, survey.source))]


def _describe(machine: Machine) -> str:
    cores = machine.usable_cores
    gpus = ", ".join(gpu.name for gpu in machine.gpus) or "no GPU"
    return f"{counted(cores, 'core')}, {machine.usable_memory / 2**30:.0f} GB of memory, {gpus}"


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("init")
        parser.add_argument(
            "images", type=Path, metavar="IMAGES",
            help="folder of images, best with a folder for each class in it; or a zip or tar file of such folders",
        )  # fmt: skip
        parser.add_argument(
            "folder", type=Path, nargs="?", metavar="FOLDER",
            help="folder to make (default: runs/NAME, as IMAGES is named)",
        )  # fmt: skip
        parser.add_argument(
            "--for", choices=("laptop", "gpu"), dest="target",
            help="the machine that will train; default: whichever this one is",
        )  # fmt: skip
        parser.add_argument(
            "--skip-empty-classes", action="store_true", help="leave out class folders without a usable image"
        )
        init(parser.parse_args(arguments))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
