"""The probe in pretraining: every few epochs, logistic regression on labelled images judges the encoder's features."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.checkpoint.find import PROBED
from tfinpaint.config.encoders import ARCHITECTURES
from tfinpaint.data.listing.listing import Listing, fraction_indices, list_class_folders
from tfinpaint.data.tasks import classification_task
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.models.encoder import build_encoder
from tfinpaint.probing.classifiers import fit_linear_probe
from tfinpaint.probing.features import pooled_model
from tfinpaint.probing.images import HELD_OUT, SPLIT_SEED
from tfinpaint.runs.data import DataSet, open_data
from tfinpaint.runs.run import Run
from tfinpaint.train.totals import EpochResult

log = logging.getLogger(__name__)

JUDGED = {3: "probe_stage3", 4: "probe_stage4", 5: PROBED}  # number of a stage -> metric
TRIED = (0.001, 0.01, 0.1)  # values of C
FITTED = 0.5  # of the images of each class; the others measure the accuracy
_DRAW = 2**31  # beyond the seeds of a configuration: runs with other seeds are judged by the same images
_RANDOM_ENCODER = 1  # seed of its weights


class OnlineProbe:
    """The probe of a run that pretrains; every rank has one, and all get the same results.

    It computes in an encoder of its own, in float32, into which the weights of the run are copied, so that nothing of
    the run changes, neither its weights nor its random numbers.

    Attributes:
        every: number of epochs between two probes.
        random: accuracies of a random encoder by metric, with the batch-norm statistics that it begins with.
        seconds: time that this first probe has taken.
    """

    def __init__(self, run: Run, world: World, data: DataSet, model: keras.Model) -> None:
        """
        Args:
            data: the labelled images.
            model: the one that is trained.
        """
        assert run.config.probe
        self.every, self._last, self._world, self._data = run.config.probe.every, run.config.num_epochs, world, data
        self._stages = list(ARCHITECTURES[run.config.model.encoder].stages)
        encoder = _random_encoder(run)
        self._copied = _pairs(encoder, model)
        pooled = pooled_model(run.config.model.encoder, encoder)
        self._width = sum(output.shape[-1] for output in pooled.outputs)
        self._ends = np.cumsum([output.shape[-1] for output in pooled.outputs])[:-1]
        self._compute = tf.function(
            lambda inputs: tf.concat(pooled(inputs, training=False), axis=1), autograph=False, reduce_retracing=True
        )
        listing = data.images.listing
        fitted = fraction_indices(listing, FITTED, _DRAW)
        self._fitted, self._measured = fitted, np.setdiff1d(np.arange(len(listing)), fitted)
        self._labels = listing.labels
        if not len(self._measured):
            raise UserError(f"probe: {listing.root}: no class has two images, one to fit with and one to measure with")
        began = time.monotonic()
        self.random = self._accuracies()
        self.seconds = time.monotonic() - began
        log.info(
            f"Probe every {'epoch' if self.every == 1 else f'{self.every} epochs'}: "
            f"logistic regression on {len(fitted)} images of {len(listing.classes)} "
            f"classes, measured on {len(self._measured)} others; on stage 5 of a random encoder its accuracy is "
            f"{self.random[PROBED]:.4f}"
        )

    def __call__(self, epoch: int) -> dict[str, float]:
        """Return the accuracies at the end of an epoch by metric; {} where no probe is due. Every rank calls this."""
        if epoch % self.every and epoch != self._last:
            return {}
        self._world.report_task(f"in epoch {epoch}, probing the encoder")
        for own, trained in self._copied:
            own.assign(trained)
        return self._accuracies()

    def _accuracies(self) -> dict[str, float]:
        features = gather_features(self._world, self._data, self._compute, self._width)

        def judge() -> dict[str, float]:
            stages = dict(zip(self._stages, np.split(features, self._ends, axis=1), strict=True))
            return {name: self._accuracy(stages[stage]) for stage, name in JUDGED.items()}

        return self._world.run_on_rank0(judge)

    def _accuracy(self, features: np.ndarray) -> float:
        if not np.isfinite(features).all():
            raise UserError("probe: the encoder's features are not finite; lower optimizer.learning_rate")
        fitted = fit_linear_probe(features[self._fitted], self._labels[self._fitted], TRIED)
        found = fitted.probabilities(features[self._measured]).argmax(axis=1)
        return float(np.mean(found == self._labels[self._measured]))


def gather_features(world: World, data: DataSet, compute: Callable[[tf.Tensor], tf.Tensor], width: int) -> np.ndarray:
    """Return the features of all images, in the order of the listing; each rank computes those of its share.

    Args:
        compute: from inputs, [batch, height, width, channels], to features, [batch, width].

    Returns:
        float32 [images, width], the same on every rank.
    """
    images, done = len(data), 0
    own = np.zeros((-(-images // world.size), width), np.float32)
    for batch in data.evaluation_batches():
        world.report_activity()
        found = tf.cast(compute(batch["inputs"]), tf.float32).numpy()
        own[done : done + len(found)] = found
        done += len(found)
    shares = world.all_gather_rows(own)  # [ranks, rows, width]; rank r has the images r, r + ranks, ...
    return shares.swapaxes(0, 1).reshape(-1, width)[:images].astype(np.float32)


def open_online_probe(run: Run, world: World, folder: Path, model: keras.Model) -> OnlineProbe:
    """Open the labelled images of the probe, and judge a random encoder by them. Every rank calls this.

    Args:
        folder: of the run.
        model: the one that is trained.

    Raises:
        UserError: There are no class folders, images cannot be used, or the encoder ends before its last addition.
    """
    config, section = run.config, run.config.probe
    assert section
    assert config.data.input_path
    try:
        if section.path is not None:
            listing = list_class_folders(section.path)
        else:
            listing = list_class_folders(config.data.input_path, tag=config.data.training_tag)
    except UserError as error:
        raise UserError(f"probe: {error}; name a folder of class folders in probe.path, or remove probe") from None
    listing = choose_images(listing, section.images)
    task = classification_task(config, labels=True, augment=False)
    data = open_data(run, world, folder, task, listing, training=False)
    return OnlineProbe(run, world, data, model)


def choose_images(listing: Listing, count: int) -> Listing:
    """Return about this number of images, the same fraction of each class and at least one of it.

    None of them is among those that `tfinpaint probe` sets aside for testing, if it is given the same folder: otherwise
    the choice of a checkpoint would have seen the labels of test images. Where some images cannot be read, which is not
    known here, a few of the others may be.
    """
    tested = fraction_indices(listing, HELD_OUT, SPLIT_SEED)
    tested = tested[np.bincount(listing.labels)[listing.labels[tested]] > 1]  # a single image is never set aside
    rest = listing.select(np.delete(np.arange(len(listing)), tested))
    return rest.select(fraction_indices(rest, min(1.0, count / len(rest)), _DRAW))


def _random_encoder(run: Run) -> keras.Model:
    """Return an encoder with random weights, without a trace in the random numbers of the run."""
    (height, width, channels), section = run.config.input_shape, run.config.model
    assert height
    assert width
    policy, state = keras.config.dtype_policy(), random.getstate()
    keras.config.set_dtype_policy("float32")
    random.seed(_RANDOM_ENCODER)  # Keras draws the seeds of initial weights there
    try:
        return build_encoder(section.encoder, "after_relu", height, width, channels, section.stem)
    finally:
        random.setstate(state)
        keras.config.set_dtype_policy(policy)


def _pairs(encoder: keras.Model, model: keras.Model) -> list[tuple[keras.Variable, keras.Variable]]:
    """Return the variables of the probe's encoder, each with that of the same layer in the model that is trained.

    Raises:
        UserError: a layer is missing.
    """
    trained = {layer.name: layer for layer in model.layers}
    layers = [layer for layer in encoder.layers if layer.variables]
    if missing := [layer.name for layer in layers if layer.name not in trained]:
        raise UserError(
            f"probe: the encoder lacks {missing[0]}, which leads to the end of stage 5; set model.encoder_output: "
            "after_relu"
        )
    return [pair for layer in layers for pair in zip(layer.variables, trained[layer.name].variables, strict=True)]


@dataclass
class BestProbe:
    """The epoch with the highest accuracy of the probe so far, the first of several; equal on all ranks.

    Attributes:
        epoch: None before the first probe.
        accuracy: its accuracy.
    """

    epoch: int | None = None
    accuracy: float = -1.0

    @classmethod
    def before(cls, run: Run) -> BestProbe:
        """Return that of the epochs before a run was resumed."""
        progress = run.resumed.progress if run.resumed else None
        records = progress.records if progress else ()
        known = {int(r["epoch"]): float(r[PROBED]) for r in records if PROBED in r}
        epoch = progress.best_probe_epoch if progress else None
        return cls(epoch, known.get(epoch, -1.0)) if epoch is not None else cls()

    def is_new(self, epoch: int, train: EpochResult) -> bool:
        """Note the accuracy of an epoch, where it was probed; return whether it is the best one."""
        accuracy = train.values.get(PROBED)
        if accuracy is None or accuracy <= self.accuracy:
            return False
        self.epoch, self.accuracy = epoch, accuracy
        return True
