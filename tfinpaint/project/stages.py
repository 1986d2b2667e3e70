"""The stages of a project: their commands, and which of them are finished."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfinpaint.checkpoint.find import (
    checkpoints_folder,
    find_checkpoint,
    find_reported,
    find_weights,
    list_checkpoints,
)
from tfinpaint.cli.options import load_resolved
from tfinpaint.config.checks import Command, check_command
from tfinpaint.config.diff import MOST_CHARACTERS, MOST_NAMED, differences, what_changed
from tfinpaint.config.loader import read_values
from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.layout import (
    CLASSIFY_CONFIG,
    CLASSIFY_RUN,
    COMPARISON,
    PREPARED,
    PRETRAIN_CONFIG,
    PRETRAIN_RUN,
    PROJECT,
    RESOLVED_CONFIG,
    SCRATCH_RUN,
    SUMMARY,
)
from tfinpaint.project.files import Project, read_project
from tfinpaint.storage.safe_json import read_json
from tfinpaint.sweeping.plan import SCRATCH_STEPS
from tfinpaint.sweeping.processes import training_command
from tfinpaint.system.paths import display_path, typed_path

SCRATCH_RATE = 1e-3  # the middle one of those that a sweep tries from scratch
# What differs where a project was moved.
_PLACES = frozenset({"data.input_path", "data.test_input_path", "checkpoints.load", "probe.path"})
# How the keys begin that a training can be continued with where they have changed.
_CONTINUABLE = ("num_epochs", "steps_per_epoch", "optimizer.", "early_stopping", "data.batch_size")


@dataclass(frozen=True)
class Training:
    """A stage that is a run of `pretrain` or `classify`.

    Attributes:
        folder: of the project.
        name: of its run folder in there.
        file: name of its configuration.
        title, purpose: what it does and why, for the terminal.
        begins_from: name of the run whose encoder it begins with; "" for none.
    """

    folder: Path
    name: str
    task: Command
    file: str
    title: str
    purpose: str
    begins_from: str = ""

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / self.name

    @property
    def overrides(self) -> list[str]:
        """What differs from the configuration file, as for --set.

        Raises:
            UserError: The file cannot be read.
        """
        if self.name != SCRATCH_RUN:
            return []
        return scratch_overrides(load_resolved(self.folder / self.file, [], self.task))

    def config(self) -> Config:
        """Return the configuration of the run.

        Raises:
            UserError: The file cannot be read.
        """
        return load_resolved(self.folder / self.file, self.overrides, self.task, self.run)

    def typed_options(self) -> list[str]:
        """Return the options behind --config FILE, as a user types them."""
        sets = self._set_options()
        return [*sets, "--workdir", display_path(self.run)] if sets else []

    def command(self, ranks: int) -> Sequence[str]:
        """Return the command that begins or continues the run in a process of its own."""
        resumed = ["--resume"] if (self.run / RESOLVED_CONFIG).exists() else []
        started = ["--ranks", str(ranks)] if ranks > 1 else []
        options = (*self._set_options(), "--workdir", str(self.run), *resumed, *started)
        return training_command(self.task, self.folder / self.file, *options)

    def _set_options(self) -> list[str]:
        return [part for override in self.overrides for part in ("--set", override)]

    def check(self, ranks: int) -> None:
        """Raise UserError if the configuration cannot work on so many ranks; checkpoints are not looked for."""
        try:
            check_command(self.config(), self.task, ranks)
        except UserError as error:
            path = str(self.folder / self.file)
            raise UserError(str(error) if str(error).startswith(path) else f"{path}: {error}") from None

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of the finished run; None if it is not finished."""
        found = read_json(self.run / SUMMARY)
        return found if isinstance(found, dict) else None

    def right(self) -> tuple[int, int] | None:
        """Return how many test images the finished classifier was right on, and of how many; None if it is unknown."""
        found = self.summary() or {}
        accuracy, images = found.get("test_accuracy"), found.get("test_images")
        if not isinstance(accuracy, int | float) or not isinstance(images, int) or images < 1 or not 0 <= accuracy <= 1:
            return None
        return round(accuracy * images), images

    def is_finished(self) -> bool:
        """Return whether the run is finished, as the present configuration would have it.

        Raises:
            UserError: It was begun with another configuration, or with an encoder that was replaced.
        """
        summary = self.summary()
        again = f"remove {display_path(self.run)} to train it again"
        if summary is not None or self.has_checkpoints():
            self._check_unchanged("begun" if summary is None else "finished", again)
        if summary is None:
            return False
        if self.begins_from:
            source = self.folder / self.begins_from
            found = read_json(source / SUMMARY)
            if not isinstance(found, dict) or _finished(found) > _finished(summary):
                raise UserError(
                    f"{display_path(self.run)}: began with another encoder than that of {display_path(source)}, which "
                    f"{'was' if found else 'is to be'} trained again; {again}"
                )
        return True

    def what_is_lost(self) -> str:
        """Return why the weights of the finished run cannot be used, and what to do; "" where they can be used."""
        again = f"remove {display_path(self.run)} and type `tfinpaint run` to train it again"
        if not self.has_checkpoints():
            if self.config().checkpoints.save is None:
                return ""  # none are kept, as the configuration asks
            return f"{display_path(self.run)}: its checkpoints are gone; bring them back, or {again}"
        try:
            chosen = find_weights(self.run) if self.name == PRETRAIN_RUN else find_reported(self.run)
            find_checkpoint(chosen.path)
        except UserError as error:
            return f"{error}, or {again}"
        return ""

    def has_checkpoints(self) -> bool:
        """Return whether the run has saved a checkpoint that is still there."""
        saved = checkpoints_folder(self.run) if self.run.is_dir() else None
        return saved is not None and bool(list_checkpoints(saved))

    def _check_unchanged(self, done: str, again: str) -> None:
        """Raise UserError if the configuration is not that with which the run was begun or finished."""
        different = differences(read_values(self.run / RESOLVED_CONFIG), self.config())
        changed = {key: values for key, values in different.items() if key not in _PLACES}
        if changed:
            raise UserError(
                f"{self.folder / self.file}: {what_changed(changed, f'{display_path(self.run)} was {done}')}; "
                f"{self._restored(changed)}, {self._continued(changed, different)}or {again}"
            )

    def _restored(self, changed: Mapping[str, tuple[Any, Any]]) -> str:
        """Return how the file gets the values that the run has."""
        values = {key: self._value_for_file(key, before) for key, (before, _) in [*changed.items()][:MOST_NAMED]}
        short = [f"{key} to {value}" for key, value in values.items() if value and len(value) <= MOST_CHARACTERS]
        given = [f"set {' and '.join(short)} in {display_path(self.folder / self.file)}"] if short else []
        left = len(changed) - len(short)
        return ", ".join([*given, *(["restore it" if len(changed) == 1 else "restore the others"] if left else [])])

    def _value_for_file(self, key: str, before: Any) -> str:
        """Return the value of a key in the file with which the run has its own; "" where there is none."""
        if any(override.startswith(f"{key}=") for override in self.overrides):  # the file has another one
            if key != "num_epochs" or not isinstance(before, int) or before % SCRATCH_STEPS:
                return ""
            before //= SCRATCH_STEPS
        return json.dumps(before)

    def _continued(self, changed: Mapping[str, tuple[Any, Any]], different: Collection[str]) -> str:
        """Return how to continue the run with changed keys, to stand before "or"; "" where that cannot be done.

        Args:
            different: all keys that differ, also because the project was moved.
        """
        before, now = changed.get("num_epochs", (0, 0))
        is_done = self.summary() is not None and not before < now  # nothing would be left to do
        if is_done or not self.has_checkpoints() or not all(key.startswith(_CONTINUABLE) for key in changed):
            return ""
        allowed = [part for key in different for part in ("--allow-change", key)]
        config = typed_path(self.folder / self.file)
        words = " ".join(map(shlex.quote, [*self.typed_options(), "--resume", *allowed]))
        return f"continue with the new value by `tfinpaint {self.task} --config {config} {words}`, "


def _finished(summary: dict[str, Any]) -> float:
    """Return when a run was finished, in seconds since 1970."""
    try:
        return datetime.datetime.fromisoformat(str(summary["finished"])).timestamp()
    except (KeyError, ValueError, OverflowError):
        return 0.0


def scratch_overrides(config: Config) -> list[str]:
    """Return what the classifier from scratch has in place of the other's settings, for `--set`.

    What suits a pretrained encoder alone would hold it back: small learning rates for the first layers, and layers that
    are not trained. It has more steps, because its encoder has not been trained before.
    """
    overrides = [
        "checkpoints.load=null",
        "model.head_init=random",
        "optimizer.layer_decay=1",
        f"optimizer.learning_rate={SCRATCH_RATE:g}",
        f"num_epochs={SCRATCH_STEPS * config.num_epochs}",
    ]
    if config.model.trainable is not None:
        overrides.append("model.trainable=null")
    if config.optimizer.unfreeze_every:
        overrides.append("optimizer.unfreeze_every=null")
    return overrides


def trainings(folder: Path, project: Project) -> list[Training]:
    """Return the trainings of a project, in order."""
    pretraining = Training(
        folder, PRETRAIN_RUN, "pretrain", PRETRAIN_CONFIG, "Pretrain",
        "the encoder learns from all training images, without labels, what they look like",
    )  # fmt: skip
    if not project.has_classes:
        return [pretraining]
    return [
        pretraining,
        Training(
            folder, CLASSIFY_RUN, "classify", CLASSIFY_CONFIG, "Classify",
            "a classifier begins with the pretrained encoder and learns the classes from the labels", PRETRAIN_RUN,
        ),
        Training(
            folder, SCRATCH_RUN, "classify", CLASSIFY_CONFIG, "From scratch",
            f"the same classifier without pretraining, with {SCRATCH_STEPS} times the steps, to compare with",
        ),
    ]  # fmt: skip


def runs_of(path: Path) -> list[Path]:
    """Return the run folders that a path stands for: those of a project that have begun, otherwise the path itself.

    Raises:
        UserError: It is a project that has not begun to train.
    """
    if not (path / PROJECT).is_file():
        return [path]
    begun = [each.run for each in trainings(path, read_project(path)) if (each.run / RESOLVED_CONFIG).exists()]
    if not begun:
        raise UserError(f"{path}: no training of this project has begun; {run_first(path)}")
    return begun


def made_before(file: Path) -> dict[Path, str]:
    """Return what a configuration of a project needs and does not find yet: absolute path -> the command that makes it.

    Returns:
        {} for any other file.
    """
    folder = file.absolute().parent
    if not (folder / PROJECT).is_file():
        return {}
    project = read_project(folder)
    if file.name not in {training.file for training in trainings(folder, project)}:
        return {}
    found = {}
    prepare, pretrain, *_ = [*commands(folder, project, Path(display_path(Path(project.images)))), ""]
    if project.has_classes and not (folder / PREPARED).exists():
        found[folder.resolve() / PREPARED] = prepare
    run = folder / PRETRAIN_RUN
    if file.name == CLASSIFY_CONFIG and not (run.is_dir() and list_checkpoints(checkpoints_folder(run) or run)):
        found[folder.resolve() / PRETRAIN_RUN] = pretrain
    return found


def finished_before(file: Path) -> Path | None:
    """Return the run folder of a configuration of a project whose training is finished; None for any other file."""
    folder = file.absolute().parent
    if not (folder / PROJECT).is_file():
        return None
    runs = trainings(folder, read_project(folder))
    return next((each.run for each in runs if each.file == file.name and each.summary() is not None), None)


def run_first(folder: Path) -> str:
    """Return the command that begins or continues a project, as the end of a message."""
    return f"train first: tfinpaint run {typed_path(folder)}"


def commands(folder: Path, project: Project, images: Path) -> list[str]:
    """Return the commands of all stages, as they are typed.

    Args:
        images: as the user has named them.
    """
    lines = []
    if project.has_classes:
        skip = " --skip-empty-classes" if project.skip_empty_classes else ""
        lines.append(
            f"tfinpaint prepare {shlex.quote(str(images))} {typed_path(folder / PREPARED)} --test-fraction "
            f"{project.test_fraction}{skip}"
        )
    runs = trainings(folder, project)
    for training in runs:
        config = typed_path(folder / training.file)
        lines.append(
            " ".join([f"tfinpaint {training.task} --config {config}", *map(shlex.quote, training.typed_options())])
        )
    if project.has_classes:
        named = " ".join(typed_path(training.run) for training in runs)
        lines.append(f"tfinpaint compare {named} --report {typed_path(folder / COMPARISON)}")
    return lines
