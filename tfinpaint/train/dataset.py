"""The images of a run: checked once, shared out among the ranks, made into batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfinpaint.data import pipeline
from tfinpaint.data.checked import find_unreadable_once
from tfinpaint.data.pipeline import Batch, Images, Shard
from tfinpaint.data.recipes import Recipe
from tfinpaint.data.sources import Listing
from tfinpaint.errors import UserError
from tfinpaint.train.run import Run

log = logging.getLogger(__name__)


class Batches:
    """The batches of a tf.data chain, from its beginning at each iteration.

    Iterating raises UserError where an image can no longer be read, although it could when it was checked.
    """

    def __init__(self, batches: tf.data.Dataset, sources: Sequence[Images]) -> None:
        self._batches, self._sources = batches, sources

    def take(self, count: int) -> Batches:
        """The first batches alone."""
        return Batches(self._batches.take(count), self._sources)

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._batches
        except tf.errors.OpError:
            if failed := [line for images in self._sources for line in images.failed]:
                raise UserError(f"unusable since it was checked: {failed[0]}") from None
            raise


@dataclass(frozen=True)
class DataSet:
    """A rank's share of the examples of training or of evaluation, and how they become batches.

    Attributes:
        targets: images to compare outputs with; None for labels, targets cut from the inputs, or none at all.
    """

    run: Run
    images: Images
    targets: Images | None
    recipe: Recipe

    def __len__(self) -> int:
        return len(self.images.listing)

    @property
    def has_targets(self) -> bool:
        """True where there is something to score outputs with."""
        return self.recipe.has_targets

    def batches_from(self, step: int) -> Batches:
        """Endless training batches from a global step on."""
        batches = pipeline.train_batches(
            self.images, self.targets, batch_size=self.run.batch_size, seed=self.run.config.seed, first_step=step,
            prepare=self.recipe.prepare,
        )  # fmt: skip
        return Batches(batches, self._sides)

    def evaluation_batches(self) -> Batches:
        """Every example of this rank's share once, in order."""
        batches = pipeline.evaluation_batches(
            self.images, self.targets, batch_size=self.run.test_batch_size, seed=self.run.config.seed,
            prepare=self.recipe.prepare,
        )  # fmt: skip
        return Batches(batches, self._sides)

    @property
    def _sides(self) -> list[Images]:
        return [self.images, self.targets] if self.targets else [self.images]

    def sample(self, count: int) -> Batch:
        """A few examples spread over the whole set, as one batch, always the same."""
        count = min(count, len(self))
        chosen = [len(self) * i // count for i in range(count)]
        targets = self.targets.select(chosen) if self.targets else None
        return next(
            iter(
                pipeline.evaluation_batches(
                    self.images.select(chosen), targets, batch_size=count, seed=self.run.config.seed,
                    prepare=self.recipe.prepare,
                )
            )
        )  # fmt: skip


def open_data(run: Run, recipe: Recipe, listing: Listing, targets: Listing | None = None, *, minimum: int) -> DataSet:
    """Check every image once (each rank its share), leave the bad ones out, and make this rank's share readable.

    Args:
        targets: the partners of the listing's images, in its order.
        minimum: number of good images that there must be.

    Raises:
        UserError: more bad images than `data.max_bad_images`, too few images, or ranks that see different folders.
    """
    world = run.world
    shard = Shard(world.rank, world.size)
    sides = [(listing, recipe.images)] + ([(targets, recipe.targets)] if targets and recipe.targets else [])
    bad: dict[int, str] = {}
    for files, chain in sides:
        if len(set(world.gather(files.paths.digest()))) > 1:
            raise UserError(f"{files.root}: the ranks see different files there; every host needs the same images")
        found = find_unreadable_once(files, world.rank, shard.indices(len(files)), chain.reading)
        bad |= {int(i): f"{files.place(int(i))}: {why}" for part in world.gather(found) for i, why in part.items()}
    _report_bad(run, bad)
    if bad:
        good = np.delete(np.arange(len(listing)), sorted(bad))
        sides = [(files.select(good), chain) for files, chain in sides]
    count = len(sides[0][0])
    opened = [Images.open(files, shard, chain, run.config.data.preload) for files, chain in sides]
    classes = f" in {len(listing.classes)} classes" if listing.classes and recipe.has_targets else ""
    pairs = f" with targets of the same names in {targets.root}" if targets else ""
    stray = f", {listing.stray} other files passed over" if listing.stray else ""
    log.info(f"{listing.root}: {count} images{classes}{pairs}{stray}")
    if not count:
        raise UserError(f"{listing.root}: no readable image is left")
    if count < minimum:
        raise UserError(f"{listing.root}: {count} images are fewer than a batch; lower data.batch_size {minimum}")
    return DataSet(run, opened[0], opened[1] if len(opened) > 1 else None, recipe)


def _report_bad(run: Run, bad: dict[int, str]) -> None:
    limit = run.config.data.max_bad_images
    lines = [bad[i] for i in sorted(bad)]
    if len(bad) > limit:
        more = [f"... and {len(bad) - 20} more"] if len(bad) > 20 else []
        head = f"{len(bad)} unusable images, data.max_bad_images allows {limit}; mend or remove them:"
        raise UserError("\n".join([head, *lines[:20], *more]))
    for line in lines:
        log.warning(f"Skipping unusable image {line}")
    if bad:
        log.warning(f"Skipped {len(bad)} unusable images of at most {limit}")


def steps_per_epoch(run: Run, data: DataSet) -> int:
    """What the configuration says, or one pass over the data."""
    return run.config.steps_per_epoch or pipeline.steps_per_pass(len(data), run.batch_size)
