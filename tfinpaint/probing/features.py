"""Compute the features of images: the ends of an encoder's stages, averaged over all positions."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfinpaint.batch import Batch, ImageBatch
from tfinpaint.config.encoders import ARCHITECTURES, EncoderName
from tfinpaint.data.examples import Images, Preprocessing, RankShare
from tfinpaint.data.failures import Failures
from tfinpaint.data.listing.listing import Listing
from tfinpaint.data.pipeline import evaluation_batches
from tfinpaint.data.transforms import to_float
from tfinpaint.errors import UserError
from tfinpaint.system.progress import log_progress

log = logging.getLogger(__name__)

BATCH = 64
StageFeatures = Mapping[int, np.ndarray]  # number of a stage -> float32 [images, channels]


def pooled_model(encoder: EncoderName, model: keras.Model, stages: Collection[int] | None = None) -> keras.Model:
    """Return a model of the averages over all positions of each stage's last layer, in the order of the stages.

    Args:
        encoder: name of the architecture.
        model: what `models.encoder.build_encoder` returns with "after_relu".
        stages: their numbers; None: all.
    """
    pool = keras.layers.GlobalAveragePooling2D
    layers = ARCHITECTURES[encoder].stages
    pooled = [pool(name=f"stage{stage}")(model.get_layer(layers[stage]).output) for stage in _wanted(encoder, stages)]
    return keras.Model(model.input, pooled, name="features")


def extract_features(
    listing: Listing,
    preprocessing: Preprocessing,
    models: Mapping[str, tuple[EncoderName, keras.Model]],
    stages: Collection[int] | None = None,
) -> dict[str, StageFeatures]:
    """Compute the features of all images by several encoders, in one pass over the images.

    The encoders compute as in inference: batch norms use their moving statistics.

    Args:
        models: name -> (architecture, encoder); all take the same inputs.
        stages: numbers of the stages whose features are computed; None: all.

    Returns:
        name -> features of each stage, in the order of the listing.

    Raises:
        UserError: An image can no longer be read, or features are not finite.
    """
    functions = {name: _inference(pooled_model(encoder, model, stages)) for name, (encoder, model) in models.items()}
    found: dict[str, list[list[np.ndarray]]] = {name: [] for name in models}
    steps = -(-len(listing) // BATCH)
    for inputs in log_progress(input_batches(listing, preprocessing), steps, f"Features of {listing.root}, batch"):
        for name, function in functions.items():
            found[name].append([part.numpy() for part in function(inputs)])
    features: dict[str, StageFeatures] = {}
    for name, batches in found.items():
        numbers = _wanted(models[name][0], stages)
        features[name] = {
            stage: np.concatenate(parts) for stage, parts in zip(numbers, zip(*batches, strict=True), strict=True)
        }
        if not all(np.isfinite(values).all() for values in features[name].values()):
            raise UserError(f"{name}: its features are not finite; use an earlier checkpoint")
    return features


def input_batches(listing: Listing, preprocessing: Preprocessing, batch_size: int = BATCH) -> Iterator[tf.Tensor]:
    """Yield the prepared images in order, float32 [batch, height, width, channels]; the last batch may be smaller.

    Raises:
        UserError: An image can no longer be read.
    """

    def prepare(batch: ImageBatch) -> Batch:
        return {"inputs": to_float(batch["images"])}

    failures = Failures()
    images = Images.open(listing, RankShare(), preprocessing, preload=False)
    batches = evaluation_batches(images, batch_size=batch_size, seed=0, prepare=prepare, failures=failures)
    try:
        for batch in batches:
            yield batch["inputs"]
    except tf.errors.OpError:
        if failures.exceed_limit:  # an exception loses its type on its way through TensorFlow
            raise UserError(failures.message()) from None
        raise


def concatenated(features: StageFeatures) -> np.ndarray:
    """Return the features of all stages side by side, float32 [images, channels of all stages]."""
    return np.concatenate([features[stage] for stage in sorted(features)], axis=1)


def _wanted(encoder: EncoderName, stages: Collection[int] | None) -> list[int]:
    """Return the numbers of the stages of an encoder that are asked for, lowest first."""
    return [stage for stage in ARCHITECTURES[encoder].stages if stages is None or stage in stages]


def _inference(model: keras.Model) -> tf.types.experimental.PolymorphicFunction:
    """Return a function of inputs that gives a list of outputs; the model itself gives a single one as it is."""

    def infer(inputs: tf.Tensor) -> list[tf.Tensor]:
        return keras.tree.flatten(model(inputs, training=False))

    return tf.function(infer, autograph=False, reduce_retracing=True)
