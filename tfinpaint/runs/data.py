"""The images of a run: checked once, shared out among the ranks, made into batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch
from tfinpaint.data import pipeline
from tfinpaint.data.examples import Images, Preprocessing, RankShare
from tfinpaint.data.failures import Failures
from tfinpaint.data.images.decode import UnreadableImageError
from tfinpaint.data.listing.check import check_images_once
from tfinpaint.data.listing.excluded import multiple_pictures_message
from tfinpaint.data.listing.listing import Listing
from tfinpaint.data.tasks import Task
from tfinpaint.errors import UserError
from tfinpaint.runs import bad_images
from tfinpaint.runs.run import Run
from tfinpaint.system.paths import display_path

log = logging.getLogger(__name__)


class Batches:
    """The batches of a tf.data chain, from its beginning at each iteration.

    Iterating raises UserError where too many images can no longer be read, although they could when they were checked.
    """

    def __init__(self, batches: tf.data.Dataset, failures: Failures) -> None:
        self._batches, self._failures = batches, failures

    @property
    def count(self) -> int:
        """How many there are; 0 where that is not known before."""
        return max(0, int(self._batches.cardinality()))

    def take(self, count: int) -> Batches:
        """The first batches alone."""
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
    """A rank's share of the examples of training or of evaluation, and how they become batches.

    Attributes:
        targets: images to compare outputs with; None for labels, targets cut from the inputs, or none at all.
        failures: what can no longer be read in training.
        listed: digest of the names of all images that were found.
        left_out: the places among these of the images that could not be used from the beginning.
        found: all images that were found, the bad ones too.
        prints: of this rank's share of them, `data.duplicates`.
    """

    run: Run
    images: Images
    targets: Images | None
    task: Task
    failures: Failures = field(default_factory=Failures)
    listed: str = ""
    left_out: tuple[int, ...] = ()
    found: Listing | None = None
    prints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images.listing)

    @property
    def digest(self) -> str:
        """Of the names of all images, in their order."""
        return self.images.listing.paths.digest()

    @property
    def has_targets(self) -> bool:
        """True where there is something to score outputs with."""
        return self.task.has_targets

    def batches_from(self, step: int) -> Batches:
        """Endless training batches from a global step on."""
        batches = pipeline.train_batches(
            self.images, self.targets, batch_size=self.run.batch_size, seed=self.run.config.seed, first_step=step,
            prepare=self.task.prepare, failures=self.failures,
        )  # fmt: skip
        return Batches(batches, self.failures)

    def evaluation_batches(self) -> Batches:
        """Every example of this rank's share once, in order."""
        failures = Failures()
        batches = pipeline.evaluation_batches(
            self.images, self.targets, batch_size=self.run.test_batch_size, seed=self.run.config.seed,
            prepare=self.task.prepare, failures=failures,
        )  # fmt: skip
        return Batches(batches, failures)

    def sample(self, count: int) -> Batch:
        """A few examples spread over the whole set, as one batch, always the same while all can be read.

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
        return next(
            iter(
                pipeline.evaluation_batches(
                    self.images.select(chosen), targets, batch_size=count, seed=self.run.config.seed,
                    prepare=self.task.prepare,
                )
            )
        )  # fmt: skip


def open_data(run: Run, task: Task, listing: Listing, targets: Listing | None = None, *, training: bool) -> DataSet:
    """Check every image once (each rank its share), leave the bad ones out, and make this rank's share readable.

    Args:
        targets: the partners of the listing's images, in its order.
        training: at least a batch of images must be good, and of those that go bad later some may be replaced.

    Raises:
        UserError: more bad images than `data.max_bad_images`, too few images, or ranks that see different folders.
    """
    world, limit = run.world, run.config.data.max_bad_images
    shard = RankShare(world.rank, world.size)
    sides = [(listing, task.images)] + ([(targets, task.targets)] if targets and task.targets else [])
    bad, prints = _find_bad(run, shard, sides)
    listed = listing.paths.digest() if training else ""
    left_out = _left_out_before(run, listed) if training else None
    left_out = tuple(sorted(bad)) if left_out is None else left_out
    told = sorted(bad) if len(bad) > limit else [i for i in left_out if i in bad]
    bad_images.report_checked(world, run.folder, [bad[i] for i in told], limit)
    run.bad.extend(bad[i] for i in told)
    if left_out:
        good = np.delete(np.arange(len(listing)), left_out)
        sides = [(files.select(good), chain) for files, chain in sides]
    if listing.classes and task.has_targets:
        _check_classes(listing, sides[0][0], training)
    count = len(sides[0][0])
    if run.config.data.preload:
        world.report_task(f"loading the images of {listing.root}")
    opened = [Images.open(files, shard, chain, run.config.data.preload) for files, chain in sides]
    classes = f" in {len(listing.classes)} classes" if listing.classes and task.has_targets else ""
    pairs = f" with targets of the same names in {targets.root}" if targets else ""
    skipped = f"; {listing.excluded.summary()}" if listing.excluded.summary() else ""
    log.info(f"{display_path(listing.root)}: {count} images{classes}{pairs}{skipped}")
    if not count:
        raise UserError(f"{listing.root}: no readable image is left")
    if training and count < run.batch_size:
        raise UserError(
            f"{listing.root}: {count} images are fewer than a batch; lower data.batch_size {run.batch_size}"
        )
    failures = Failures(limit, before=len(left_out)) if training else Failures()
    targets_opened = opened[1] if len(opened) > 1 else None
    return DataSet(run, opened[0], targets_opened, task, failures, listed, left_out, listing, prints)


def _check_classes(found: Listing, good: Listing, training: bool) -> None:
    """Refuse a class that has lost all its images; tell of classes with a single one to train on.

    Raises:
        UserError: a class has none left.
    """
    before, after = (np.bincount(each.labels, minlength=len(found.classes)) for each in (found, good))
    if lost := [name for name, had, has in zip(found.classes, before, after, strict=True) if had and not has]:
        raise UserError(
            f"{found.root}: no readable image is left in class {', '.join(lost[:20])}; mend them or remove it"
        )
    if training and (single := [name for name, has in zip(found.classes, after, strict=True) if has == 1]):
        more = ", ..." * (len(single) > 5)
        log.info(f"{display_path(found.root)}: a single image to learn from in class {', '.join(single[:5])}{more}")


def _left_out_before(run: Run, listed: str) -> tuple[int, ...] | None:
    """The images that the run which is resumed has left out from its beginning; None where these need not be the same.

    What has gone bad since keeps its number, so that all others keep theirs: training comes to it, and replaces it.
    """
    if run.resumed is None or run.config.data.preload or run.resumed.progress.listed != listed:
        return None
    return run.resumed.progress.left_out


def _find_bad(
    run: Run, shard: RankShare, sides: Sequence[tuple[Listing, Preprocessing]]
) -> tuple[dict[int, tuple[str, str]], np.ndarray]:
    """Check all images and targets, each rank its share.

    Returns:
        (index -> (file, reason) of the images that cannot be used or whose targets cannot, over all ranks; the prints
        of this rank's share of the images).

    Raises:
        UserError: the ranks see different folders.
    """
    bad: dict[int, tuple[str, str]] = {}
    prints = []
    for files, chain in sides:
        run.world.report_task(f"checking the images of {files.root}")
        if len(set(run.world.all_gather(files.paths.digest()))) > 1:
            raise UserError(f"{files.root}: the ranks see different files there; every host needs the same images")
        found = check_images_once(files, run.world.rank, shard.indices(len(files)), chain.decoding)
        more: list[int] = []
        for part, of_more in run.world.all_gather([found.bad, found.multiple]):
            bad |= {int(i): (files.place(int(i)), why) for i, why in part.items()}
            more += of_more
        if more:
            log.info(f"{files.root}: {multiple_pictures_message(len(more), files.paths[min(more)])}")
        prints.append(found.fingerprints)
    return bad, prints[0]


def steps_per_epoch(run: Run, data: DataSet) -> int:
    """What the configuration says, or one pass over the data."""
    return run.config.steps_per_epoch or pipeline.steps_per_pass(len(data), run.batch_size)
