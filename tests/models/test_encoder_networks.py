"""The encoders: names, shapes and parameters of each, groups of layers, the small stem, one step of training."""

import hashlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from tfinpaint.checkpoint.transfer import copy_weights, layer_weights, plan_transfer
from tfinpaint.config.encoders import ARCHITECTURES, STRIDES
from tfinpaint.config.optimizer import Optimizer
from tfinpaint.distributed.world import World
from tfinpaint.models.classifier import build_classifier
from tfinpaint.models.decoder import build_inpainter
from tfinpaint.models.encoder import block_ends, build_encoder, distances_from_head
from tfinpaint.models.frozen import divide
from tfinpaint.models.losses import of_targets
from tfinpaint.models.networks import NETWORKS
from tfinpaint.models.trainable import set_trainable
from tfinpaint.train.optimizers import build_optimizer
from tfinpaint.train.step import StepOptions
from tfinpaint.train.trainer import Trainer

# tests/golden/encoders.json: the numbers of layers with weights and of parameters, and the SHA-256 of `described`.
GOLDEN = json.loads((ROOT / "tests" / "golden" / "encoders.json").read_text())
SMALL = ("tiny", "resnet18")  # built in less than a second
LARGE = sorted({*ARCHITECTURES} - {*SMALL})
EVERY = [*SMALL, *(pytest.param(name, marks=pytest.mark.stress) for name in LARGE)]
# Encoders with the stems that they can have.
FORMS = [
    (name, stem) for name, each in ARCHITECTURES.items() for stem in STRIDES if each.problem(stem, "after_relu") is None
]
EVERY_FORM = [
    form if form == ("resnet18", "standard") else pytest.param(*form, marks=pytest.mark.stress) for form in FORMS
]
KERAS = {  # name -> in keras.applications
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "convnext_tiny": "ConvNeXtTiny",
    "densenet121": "DenseNet121",
    "efficientnet_v2_b0": "EfficientNetV2B0",
    "mobilenet_v3_large": "MobileNetV3Large",
}


def described(model: keras.Model) -> list[str]:
    """`layer/weight shape` of every weight, in order."""
    return [f"{layer.name}/{w.name} {tuple(w.shape)}" for layer in model.layers for w in layer.weights]


def digest(model: keras.Model) -> str:
    return hashlib.sha256("\n".join(described(model)).encode()).hexdigest()


def shapes_of(model: keras.Model) -> list[tuple[str, list[tuple[int, ...]]]]:
    """The name of each layer with weights, in models within the model too, and their shapes."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += shapes_of(layer)
        elif layer.weights:
            found.append((layer.name, [tuple(weight.shape) for weight in layer.weights]))
    return found


def outputs_of(name: str) -> list[str]:
    return ["after_relu", *(["before_add"] if ARCHITECTURES[name].before_add else [])]


def test_every_encoder_has_a_network_and_golden_names():
    assert set(ARCHITECTURES) == set(NETWORKS) == set(GOLDEN)


@pytest.mark.parametrize("name", EVERY)
def test_names_shapes_and_parameters_are_the_golden_ones(name):
    model = build_encoder(name, "after_relu", 64, 96)
    layers = sum(bool(layer.weights) for layer in model.layers)
    found = {"layers": layers, "parameters": model.count_params(), "sha256": digest(model)}
    assert found == GOLDEN[name]
    assert model.output_shape == (None, 2, 3, ARCHITECTURES[name].maps)
    if name in KERAS:
        whole = getattr(keras.applications, KERAS[name])(include_top=False, weights=None)
        own, wanted = shapes_of(model), shapes_of(whole)
        if name == "convnext_tiny":  # whose last layer is named by a counter
            assert own.pop() == ("convnext_tiny_head_layernorm", wanted.pop()[1])
        assert own == wanted


@pytest.mark.parametrize("name", EVERY)
def test_stages_halve_the_maps_and_all_paths_pass_their_ends(name):
    architecture, model = ARCHITECTURES[name], build_encoder(name, "after_relu", 64, 96)
    for stage, end in architecture.stages.items():
        assert model.get_layer(end).output.shape[1:3] == (64 // 2**stage, 96 // 2**stage)
    assert model.output_names == [architecture.stages[5]]
    ends = {architecture.stem, *architecture.stages.values(), *block_ends(name, model)} - {architecture.stages[5]}
    for end in ends:
        keras.Model(model.get_layer(end).output, model.output)  # fails where a path leads around the layer


@pytest.mark.parametrize("name", EVERY)
def test_layers_are_counted_from_the_head(name):
    for output in outputs_of(name):
        model = build_classifier(build_encoder(name, output, 32, 32), 2)
        distances = distances_from_head(name, output, model)
        counted = [distances.get(layer.name, 0) for layer in model.layers if layer.weights]
        assert counted == sorted(counted, reverse=True)
        assert {*counted} == {0, 1, 2, 3, 4, 5}
        assert {layer.name for layer in model.layers} - {*distances} == {"flatten_1", "dense_1", "softmax"}
        paths = {variable.path.partition("/")[0] for variable in model.variables}
        assert paths - {*distances} == {"dense_1"}  # an optimizer knows layers by the paths of their variables


@pytest.mark.stress
@pytest.mark.parametrize("name", [name for name in KERAS if name != "convnext_tiny"])
def test_weights_load_into_the_network_of_keras(tmp_path, name):
    model, options = build_encoder(name, "after_relu", 32, 32), {"include_top": False, "weights": None}
    if name in ("efficientnet_v2_b0", "mobilenet_v3_large"):
        options["include_preprocessing"] = False
    whole = getattr(keras.applications, KERAS[name])(**options, input_shape=(32, 32, 3))
    model.save_weights(tmp_path / "e.weights.h5")
    whole.load_weights(tmp_path / "e.weights.h5")
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    for one, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        assert np.array_equal(one, other)
    np.testing.assert_allclose(model(images), whole(images), rtol=1e-4, atol=1e-6)


@pytest.mark.stress
@pytest.mark.parametrize("name", LARGE)
def test_a_frozen_encoder_is_computed_once_as_a_whole(name):
    model = build_classifier(build_encoder(name, "after_relu", 32, 32), 2)
    set_trainable(model, "head_only")
    assert divide(model).last_frozen == "flatten_1"


def test_groups_of_a_resnet_are_those_of_its_names():
    for name, stem in (("resnet18", "standard"), ("tiny", "small")):
        model = build_inpainter(build_encoder(name, "after_relu", 32, 32, stem=stem))
        distances = distances_from_head(name, "after_relu", model)
        for layer in model.layers[1:]:
            group = {"pool1": "1", "decod": "6"}.get(layer.name[:5], layer.name.removeprefix("conv")[:1])
            assert distances.get(layer.name, 0) == 6 - int(group), layer.name


def test_a_resnet18_has_the_parameters_of_torchvision():
    model = build_encoder("resnet18", "after_relu", 32, 32)
    # torchvision.models.resnet18 has 11,689,512, of which 513,000 are those of its head.
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 11_689_512 - 513_000


@pytest.mark.parametrize("name", ["tiny", pytest.param("resnet18", marks=pytest.mark.stress)])
def test_a_small_stem_keeps_the_sides_and_the_names(name):
    model, standard = (build_encoder(name, "before_add", 32, 64, stem=stem) for stem in ("small", "standard"))
    assert model.output_shape == (None, 4, 8, ARCHITECTURES[name].maps)
    assert model.get_layer(ARCHITECTURES[name].stages[2]).output.shape[1:3] == (32, 64)
    assert [layer.name for layer in model.layers[1:]] == [layer.name for layer in standard.layers[1:]]
    other = [a for a, b in zip(described(model), described(standard), strict=True) if a != b]
    assert [each.partition(" ")[0] for each in other] == ["conv1_conv/kernel"]
    assert tuple(model.get_layer("conv1_conv").kernel.shape[:2]) == (3, 3)
    assert build_encoder(name, "after_relu", 24, 8, stem="small").output_shape[1:3] == (3, 1)


def test_initial_weights_follow_the_seed():
    weights = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        weights.append(build_encoder("tiny", "after_relu", 32, 32, stem="small").get_weights()[0])
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


@pytest.mark.parametrize("stem", ["standard", "small"])
def test_a_decoder_doubles_as_often_as_the_encoder_halves(stem):
    encoder = build_encoder("tiny", "after_relu", 32, 64, stem=stem)
    model = build_inpainter(encoder, decoder="batchnorm")
    filters = [layer.filters for layer in model.layers if layer.name.startswith("decoder_layer_") and layer.weights
               and hasattr(layer, "filters")]  # fmt: skip
    assert model.output_shape == (None, 32, 64, 3)
    assert filters == {"standard": [512, 256, 128, 64, 3], "small": [128, 64, 3]}[stem]
    assert STRIDES[stem] == 2 ** len(filters)
    hidden = [layer for layer in model.layers if layer.name.startswith("decoder_layer_") and "bn" in layer.name]
    assert len(hidden) == len(filters) - 1


def inpainter_of(name: str, stem: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_inpainter(build_encoder(name, "after_relu", 32, 32, stem=stem))


@pytest.mark.parametrize(("name", "stem"), EVERY_FORM)
def test_an_encoder_trains_and_moves_into_a_classifier(name, stem):
    model, images = inpainter_of(name, stem), np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(images, training=True) - images))
    for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True):
        if weight.name.endswith("kernel"):
            assert np.abs(gradient).max() > 0, weight.path
        weight.assign_sub(0.1 * gradient)
    target = build_classifier(build_encoder(name, "after_relu", 32, 32, stem=stem), 3)
    plan = plan_transfer(layer_weights(model), target)
    copy_weights(plan, layer_weights(model), target)
    assert plan.not_copied == ["dense_1"]
    assert len(plan.copied) == GOLDEN[name]["layers"]
    end = ARCHITECTURES[name].stages[5]
    features = [keras.Model(each.input, each.get_layer(end).output)(images).numpy() for each in (model, target)]
    assert np.array_equal(*features)


@pytest.mark.stress
@pytest.mark.parametrize(("name", "stem"), FORMS)
def test_recomputed_blocks_train_as_others_with_statistics_of_visible_positions(name, stem):
    model, generator = inpainter_of(name, stem), np.random.default_rng(0)
    erased = np.zeros((8, 32, 32, 1), np.float32)
    erased[:, :16, 8:] = 1
    images = generator.random((8, 32, 32, 3), np.float32)
    batch = {"inputs": images * (1 - erased), "targets": images, "mask": erased}
    batch = {key: tf.constant(value) for key, value in batch.items()}
    objective = of_targets(lambda targets, outputs: tf.reduce_mean(tf.square(outputs - targets), axis=[1, 2, 3]))
    start, results = model.get_weights(), []
    for ends in ((), block_ends(name, model)):
        model.set_weights(start)
        optimizer = build_optimizer(Optimizer(type="SGD", learning_rate=0.1), 1, 1)
        options = StepOptions(visible_only=ARCHITECTURES[name].has_batchnorms, recompute=ends)
        Trainer(model, optimizer, objective, world=World(), step_options=options).train_steps(iter([batch]), 1)
        results.append(model.get_weights())
    # ConvNeXt's layer scales begin at 1e-6, so that a step is lost in the rounding of some kernels.
    same = [np.array_equal(a, b) for a, b in zip(start, results[0], strict=True) if a.ndim > 1]
    assert not (all(same) if name == "convnext_tiny" else any(same))
    for path, plain, recomputed in zip(described(model), *results, strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max(), err_msg=path)
