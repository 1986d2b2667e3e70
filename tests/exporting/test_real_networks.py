"""Networks of the sizes that are used, in every format."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import Transform
from tfinpaint.data.examples import split_steps
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.exporting.equality import choose_photos, compare_classifiers, compare_encoders, inputs_of_run
from tfinpaint.exporting.formats import write_classifier, write_keras
from tfinpaint.exporting.kinds import ONNX_LIBRARIES
from tfinpaint.exporting.models import photo_classifier
from tfinpaint.exporting.plain import plain_copy
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.encoder import build_encoder
from tfinpaint.runs.photo_classes import Classifier

pytestmark = pytest.mark.stress

NETWORKS = ["resnet18", "resnet50", "convnext_tiny", "efficientnet_v2_b0", "mobilenet_v3_large", "densenet121"]
STEPS = [{"resize": [72, 64]}, {"center_crop": [64, 64]}, {"normalize": {"mean": 0.5, "std": 0.25}}]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_format_computes_what_the_network_does(name, tmp_path):
    encoder = build_encoder(name, "after_relu", 64, 64)
    for layer in encoder.layers:  # weights that are not those of a new network
        layer.set_weights([value + 0.01 * np.abs(value) for value in layer.get_weights()])
    steps = tuple(enumerate(Transform.model_validate(step) for step in STEPS))
    recipe = split_steps(steps, DecodeOptions())
    classifier = Classifier(Path(), ("a", "b", "c"), build_classifier(encoder, 3, "pool"), False, recipe, 8)
    photos = choose_photos(Config(), (64, 72))
    inputs = inputs_of_run(photos, recipe)
    expected = np.asarray(classifier.model(inputs, training=False))
    model = photo_classifier(classifier)
    kinds = ["keras", "savedmodel"] + ["onnx"] * all(importlib.util.find_spec(each) for each in ONNX_LIBRARIES)
    for kind in kinds:
        (tmp_path / kind).mkdir()
        exported = write_classifier(tmp_path / kind, kind, model, classifier.classes)
        assert compare_classifiers(photos, expected, exported).difference < 1e-5
    exported = write_keras(tmp_path / "encoder.keras", plain_copy(encoder, any_size=True))
    compare_encoders(photos, encoder, inputs, exported)
