"""The files of a project: two commented configurations, and a note of where the images are."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tfinpaint.errors import UserError
from tfinpaint.layout import (
    CLASSIFY_CONFIG,
    CLASSIFY_RUN,
    PREPARED,
    PRETRAIN_CONFIG,
    PRETRAIN_RUN,
    PROJECT,
)
from tfinpaint.project.settings import Settings, rough
from tfinpaint.project.survey import Survey, absolute_source
from tfinpaint.project.templates import CLASSIFY, PRETRAIN, PROBE
from tfinpaint.storage.atomic import write_json, write_text
from tfinpaint.storage.safe_json import read_json
from tfinpaint.storage.write_errors import explain_os_error, why_not_writable
from tfinpaint.system.paths import display_path, typed_path

_PREPARED_PATHS = f"  input_path: {PREPARED}/training\n  test_input_path: {PREPARED}/testing"
PROJECTS = Path("runs")  # where `init` makes a project, unless another folder is named
_COLUMN = 34  # at which comments begin


@dataclass(frozen=True)
class Project:
    """What a project's folder notes about its images.

    Attributes:
        images: absolute path of the folder or archive, or "digits".
        has_classes: whether they are in class folders.
        test_fraction: of each class, for testing.
        skip_empty_classes: whether class folders without a usable image are left out.
        classes: names of the classes that `init` has found; () where that was not noted.
    """

    images: str
    has_classes: bool
    test_fraction: float
    skip_empty_classes: bool
    classes: tuple[str, ...] = ()


def read_project(folder: Path) -> Project:
    """Read the note of a project.

    Raises:
        UserError: There is no such folder, or it holds no project.
    """
    if folder.is_file():
        inside = f", such as {folder.parent}" if (folder.parent / PROJECT).is_file() else ""
        raise UserError(f"{folder}: is a file; name the folder that `tfinpaint init` has made{inside}")
    if not folder.is_dir():
        if (PROJECTS / folder / PROJECT).is_file():
            inside = shlex.quote(str(PROJECTS / folder))
            raise UserError(f"{folder}: no such folder; the project is in {PROJECTS}: tfinpaint run {inside}")
        raise UserError(f"{folder}: no such folder; make a project of a folder of images: tfinpaint init IMAGES")
    found = read_json(folder / PROJECT)
    kinds = {"images": str, "has_classes": bool, "test_fraction": float, "skip_empty_classes": bool}
    if not isinstance(found, dict) or any(not isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{folder}: holds no project ({PROJECT} is missing or damaged); {_project_of(folder)}")
    classes = found.get("classes")
    names = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    return Project(**{name: found[name] for name in kinds}, classes=tuple(names))


def _project_of(images: Path) -> str:
    """Return how to get to the project of a folder that lies in one, or is perhaps one of images, for a message."""
    if above := next((each for each in images.resolve().parents if (each / PROJECT).is_file()), None):
        return f"it lies in the project {display_path(above)}: tfinpaint run {typed_path(above)}"
    made = PROJECTS / images.resolve().name
    note = read_json(made / PROJECT)
    if isinstance(note, dict) and note.get("images") == absolute_source(images):
        return f"the project of these images is {made}: tfinpaint run {shlex.quote(str(made))}"
    return "make one of a folder of images: tfinpaint init IMAGES"


def check_new(folder: Path, source: Path) -> None:
    """Refuse a folder for a new project that is in use, cannot be written, or lies among the images.

    Raises:
        UserError: The message says what to do instead.
    """
    if (folder / PROJECT).exists():
        raise UserError(
            f"{folder}: holds a project already; continue it with: tfinpaint run {typed_path(folder)}, "
            f"or give the new one another name: tfinpaint init {shlex.quote(str(source))} FOLDER"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists; name another folder after the images, or remove it")
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{folder}: lies inside {source}, among the images; name a folder elsewhere after the images")
    absolute = folder.absolute()
    if reason := why_not_writable(next(each for each in (absolute, *absolute.parents) if each.exists())):
        raise UserError(f"{folder}: cannot be written: {reason}; name another folder after the images")


def write_project(
    folder: Path, survey: Survey, settings: Settings, times: Mapping[str, float], *, skip_empty_classes: bool
) -> Project:
    """Write the files of a new project, and return its note.

    Args:
        times: from `estimate_times`.

    Raises:
        UserError: The folder cannot be written; nothing is left of it.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    project = Project(
        absolute_source(survey.source), bool(survey.classes), survey.test_fraction, skip_empty_classes,
        tuple(survey.classes),
    )  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / PRETRAIN_CONFIG, _pretrain_text(folder, survey, settings, times))
        if survey.classes:
            write_text(folder / CLASSIFY_CONFIG, _classify_text(folder, survey, settings, times))
        write_json(folder / PROJECT, asdict(project))
    except OSError as error:
        for name in (PRETRAIN_CONFIG, CLASSIFY_CONFIG):
            (folder / name).unlink(missing_ok=True)
        for each in made:
            with contextlib.suppress(OSError):  # it was not made, or holds something else by now
                each.rmdir()
        raise UserError(f"{folder}: cannot be written: {explain_os_error(error)}") from None
    return project


def _pretrain_text(folder: Path, survey: Survey, settings: Settings, times: Mapping[str, float]) -> str:
    paths = _PREPARED_PATHS
    if not survey.classes:
        paths = f"  input_path: {json.dumps(absolute_source(survey.source), ensure_ascii=False)}"
        if survey.bad:
            paths += f"\n  max_bad_images: {len(survey.bad)} # as many as cannot be read; they are left out"
    text = PRETRAIN.substitute(
        images=f"{survey.training_images:,}", file=typed_path(folder / PRETRAIN_CONFIG), run=PRETRAIN_RUN,
        time=rough(times["pretraining"]), epochs=settings.epochs, steps=settings.steps,
        paths=paths, batch=settings.batch,
        preload=str(settings.preload).lower(), side=settings.side, cell=settings.cell,
        colours=_colours(0.4, 0.2, is_grey=survey.is_grey), encoder=settings.encoder,
        learning_rate=f"{settings.learning_rate:.1e}".replace("e-0", "e-"),
    )  # fmt: skip
    return _align(text + (PROBE if settings.probe else ""))


def _classify_text(folder: Path, survey: Survey, settings: Settings, times: Mapping[str, float]) -> str:
    text = CLASSIFY.substitute(
        classes=len(survey.classes), images=f"{survey.training_images:,}", run=CLASSIFY_RUN,
        file=typed_path(folder / CLASSIFY_CONFIG), time=rough(times["classifier"]),
        scratch_time=rough(times["from scratch"]), epochs=settings.class_epochs, steps=settings.class_steps,
        encoder_run=PRETRAIN_RUN, paths=_PREPARED_PATHS,
        batch=settings.class_batch, preload=str(settings.preload).lower(), side=settings.side,
        colours=_colours(0.2, 0.0, is_grey=survey.is_grey), encoder=settings.encoder,
    )  # fmt: skip
    return _align(text)


def _colours(strength: float, lost: float, *, is_grey: bool) -> str:
    """Return the lines of the transforms that change brightness and colours.

    Args:
        strength: of brightness and contrast.
        lost: fraction of the images that lose their colours.
    """
    brightness = f"brightness: {strength}, contrast: {strength}"
    if is_grey:
        return f"    - color_jitter: {{{brightness}, probability: 0.8}} # grey images have no colours to change"
    hue = f"saturation: {strength / 2}, hue: {strength / 4}"
    line = f"    - color_jitter: {{{brightness}, {hue}, probability: 0.8}}"
    return f"{line}\n    - random_grayscale: {lost}" if lost else line


def _align(text: str) -> str:
    """Return a YAML text whose comments after values begin in one column, where the values leave room.

    Quoted values stay as they are: a path may have a " # " of its own.
    """
    return re.sub(r'^( *[^#\s"][^"\n]*) # ', lambda found: f"{found[1]:<{_COLUMN}} # ", text, flags=re.MULTILINE)
