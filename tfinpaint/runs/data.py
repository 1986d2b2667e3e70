"""The images of a run: shared out among the ranks, and made into batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch
from tfinpaint.data import pipeline
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.failures import Failures
from tfinpaint.data.features import Features
from tfinpaint.data.images.unreadable import UnreadableImageError
from tfinpaint.data.listing.listing import Listing
from tfinpaint.data.tasks import Task
from tfinpaint.data.transforms import to_float
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.runs.image_check import ImageCheck, check_all_images
from tfinpaint.runs.run import Run
from tfinpaint.system.paths import display_path
from tfinpaint.system.wording import counted

log = logging.getLogger(__name__)


class Batches:
    """The batches of a tf.data pipeline. Each iteration starts from the first batch.

    Iterating raises UserError where too many images can no longer be read, although they could when they were checked.
    """

    def __init__(self, batches: tf.data.Dataset, failures: Failures) -> None:
        self._batches, self._failures = batches, failures

    @property
    def count(self) -> int:
        """Number of batches; 0 where it is not known in advance."""
        return max(0, int(self._batches.cardinality()))

    def take(self, count: int) -> Batches:
        """Return the first `count` batches."""
        return Batches(self._batches.take(count), self._failures)

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._batches
        except tf.errors.OpError:
            # An exception loses its type on its way through TensorFlow.
            if self._failures.exceed_limit or self._failures.none_left:
                raise UserError(self._failures.message()) from None
            raise


@dataclass(frozen=True)
class DataSet:
    """One rank's share of the examples of training or of evaluation, and how they become batches.

    Attributes:
        images: this rank's share of the inputs.
        targets: images to compare outputs with; None for labels, for targets cut from the inputs, or without targets.
        batch_size, test_batch_size: images in a batch of training and of evaluation, over all ranks.
        failures: what can no longer be read in training.
        check: what the check of all images has found.
        features: those of this rank's inputs, which batches then have in their place; None: images are read.
        views: how often each image is in a training batch.
    """

    images: Images
    targets: Images | None
    task: Task
    batch_size: int
    test_batch_size: int
    seed: int
    failures: Failures = field(default_factory=Failures)
    check: ImageCheck | None = None
    features: Features | None = None
    views: int = 1

    def __len__(self) -> int:
        return len(self.images.listing)

    @property
    def digest(self) -> str:
        """A digest of the names of all images, in their order."""
        return self.images.listing.paths.digest()

    @property
    def has_targets(self) -> bool:
        """True where there is something to compare outputs with."""
        return self.task.has_targets

    def batches_from(self, step: int) -> Batches:
        """Return endless training batches, beginning at a global step."""
        batches = pipeline.train_batches(
            self.images, self.targets, batch_size=self.batch_size, seed=self.seed, first_step=step,
            prepare=self.task.prepare, failures=self.failures, features=self.features,
            leave_out=self.task.not_trained_on, views=self.views,
        )  # fmt: skip
        return Batches(batches, self.failures)

    def evaluation_batches(self) -> Batches:
        """Return batches with every example of this rank's share once, in order."""
        failures = Failures()
        batches = pipeline.evaluation_batches(
            self.images, self.targets, batch_size=self.test_batch_size, seed=self.seed, prepare=self.task.prepare,
            failures=failures, features=self.features,
        )  # fmt: skip
        return Batches(batches, failures)

    def input_batches(self) -> Batches:
        """Return every input of this rank's share once, in order, with the examples that were read for them."""
        batches = pipeline.evaluation_batches(
            self.images, batch_size=self.batch_size, seed=self.seed, failures=self.failures,
            prepare=lambda batch: {"inputs": to_float(batch["images"]), "examples": batch["examples"]},
        )  # fmt: skip
        return Batches(batches, self.failures)

    def inputs_of(self, examples: Sequence[int]) -> np.ndarray:
        """Read the inputs of these examples, where they are fixed. Raises UserError where one cannot be read."""
        images = self.images.select(examples)
        batches = pipeline.evaluation_batches(
            images,
            batch_size=len(examples),
            seed=self.seed,
            prepare=lambda batch: {"inputs": to_float(batch["images"])},
        )
        return next(iter(batches))["inputs"].numpy()

    def sample(self, count: int) -> Batch:
        """Return a few examples spread over the whole set as one batch; the same ones as long as all can be read.

        Raises:
            UserError: none of them can be read.
        """
        count = min(count, len(self))
        sides = [replace(side, share=RankShare(), pixels=None) for side in (self.images, self.targets) if side]
        failures = Failures(limit=len(self))
        try:
            chosen = [failures.read(sides, len(self) * i // count)[0] for i in range(count)]
        except UnreadableImageError:
            raise UserError(failures.message()) from None
        targets = self.targets.select(chosen) if self.targets else None
        batches = pipeline.evaluation_batches(
            self.images.select(chosen), targets, batch_size=count, seed=self.seed, prepare=self.task.prepare
        )
        return next(iter(batches))


def open_data(
    run: Run,
    world: World,
    folder: Path,
    task: Task,
    listing: Listing,
    targets: Listing | None = None,
    *,
    training: bool,
) -> DataSet:
    """Check every image once, each rank its share; exclude the bad ones; make this rank's share readable.

    Args:
        folder: of the run, where bad images are listed.
        targets: the partners of the listing's images, in its order.
        training: at least a batch of images must be readable, and of those that fail later some may be replaced.

    Raises:
        UserError: more bad images than `data.max_bad_images`, too few images, or ranks that see different folders.
    """
    data, share = run.config.data, RankShare(world.rank, world.size)
    sides = [(listing, task.images)] + ([(targets, task.targets)] if targets and task.targets else [])
    check, sides = check_all_images(run, world, folder, sides, training=training, labelled=task.has_targets)
    count = len(sides[0][0])
    if data.preload:
        world.report_task(f"loading the images of {listing.root}")
    opened = [Images.open(files, share, steps, data.preload) for files, steps in sides]
    classes = _in_classes(sides[0][0]) if listing.classes and task.has_targets else ""
    pairs = f" with targets of the same names in {targets.root}" if targets else ""
    skipped = f"; {listing.excluded.summary()}" if listing.excluded.summary() else ""
    log.info(f"{display_path(listing.root)}: {counted(count, 'image')}{classes}{pairs}{skipped}")
    if not count:
        raise UserError(f"{listing.root}: no readable image is left")
    if training and count < run.batch_size:
        raise UserError(
            f"{listing.root}: {counted(count, 'image')}, fewer than a batch; lower data.batch_size {run.batch_size}"
        )
    failures = Failures(data.max_bad_images, before=len(check.excluded)) if training else Failures()
    partners = opened[1] if len(opened) > 1 else None
    return DataSet(
        opened[0], partners, task, run.batch_size, run.test_batch_size, run.config.seed, failures, check,
        views=data.views if training else 1,
    )  # fmt: skip


def _in_classes(listing: Listing) -> str:
    """Return in how many classes the images are, and of how many there are, to stand behind their number."""
    present, known = len(np.unique(listing.labels)), counted(len(listing.classes), "class", "classes")
    return f" in {known}" if present == len(listing.classes) else f" in {present} of {known}"


def steps_per_epoch(run: Run, data: DataSet) -> int:
    """Return the configured number of steps, or that of one pass over the data."""
    return run.config.steps_per_epoch or pipeline.steps_per_pass(len(data), run.batch_size)
