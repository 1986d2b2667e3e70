"""The schema: what its sections accept and refuse, what follows from the keys, and the reference in the docs."""

import importlib.util

import pytest
from conftest import ROOT
from test_loader import load

from tfinpaint.config.schema import Config, ConfigError

RESIZE = {"resize": [32, 32]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {type: Adamm}", r"config.yaml:1: optimizer.type: .*'SGD', 'Adagrad', 'Adam', .*LAMB"),
        ("optimizer: {type: SGD, beta1: 0.5}", r"optimizer: SGD has no beta1"),
        ("optimizer: {type: SGD, nesterov: true}", r"nesterov needs a momentum above 0"),
        ("optimizer: {lr_scheduler: {type: Step, gamma: 0.1}}", r"Step needs step_size"),
        ("optimizer: {lr_scheduler: {type: Cosine, gamma: 0.1}}", r"Cosine has no gamma"),
        ("optimizer: {lr_scheduler: {type: MultiStep, gamma: 0.1, milestones: [3, 2]}}", r"milestones must be in increasing"),
        ("loss: {function: MSE, weight: [1.0, 2.0]}", r"MSE has no weight"),
        ("loss: {function: L1, label_smoothing: 0.1}", r"L1 has no label_smoothing"),
        ("loss: {label_smoothing: 1.0}", r"label_smoothing: input should be less than 1"),
        ("loss: {weight: equal}", r"config.yaml:1: loss.weight: .*balanced"),
        ("loss: {adversarial: {optimizer: {ema_decay: 0.9}}}", r"ema_decay, layer_decay and unfreeze_every are for the optimizer of the model"),
        ("optimizer: {ema_decay: 1.0}", r"ema_decay: input should be less than 1"),
        ("loss: {weight: [0.0, 0.0]}", r"at least one class must have a weight above 0"),
        ("loss: {overlap: 2}", r"overlap and normalize_patches need target: masked"),
        ("loss: {target: image, normalize_patches: 8}", r"normalize_patches needs function: MSE or L1"),
        ("loss: {adversarial: {weight: 1.0}}", r"weight: input should be less than 1"),
        ("loss: {adversarial: {optimizer: {type: SGD, eps: 1e-3}}}", r"SGD has no eps"),
        ("model: {trainable: heads_only}", r"config.yaml:1: model.trainable: .*head_only"),
        ("data: {batch_size: 0}", r"data.batch_size: .*greater than or equal to 1"),
        ("data: {type: images, target_type: labels}", r"data: type: images sets input_type and target_type"),
        ("data: {transforms: [{normalize: {mean: 0.5, std: 0.0}}]}", r"a standard deviation must not be 0"),
        ("data: {transforms: [{convert_color: RGB2LAB}]}", r"convert_color: .*'BGR2RGB'"),
        ("data: {transforms: [{resize: null}]}", r"expected exactly one of resize"),
        ("data: {transforms: [{resize: [32, 32], random_horizontal_flip: 0.5}]}", r"resize and random_horizontal_flip are 2 steps; begin each of them with its own `- `"),
        ("data: {transforms: [{resize: [-32, 32]}]}", r"greater than or equal to 1"),
        ("data: {transforms: [{resize: [32, 9999]}]}", r"resize.1: input should be less than or equal to 8192"),
        ("data: {transforms: [{random_patches: {number: 4}}]}", r"config.yaml:1: data.transforms.0.random_patches.size is missing, and has no default"),
        ("data: {transforms: [{random_patches: {size: 8}}]}", r"random_patches: expected either number \(of squares\) or area"),
        ("data: {transforms: [{random_patches: {size: 8, number: 1, area: 0.5}}]}", r"random_patches: expected either number"),
        ("data: {transforms: [{random_patches: {size: 8, area: 0.9}}]}", r"random_patches.area: .* or equal to 0.75"),
        ("data: {transforms: [{random_patches: {size: 1, number: 5000}}]}", r"number: input .* or equal to 4096"),
        ("data: {transforms: [{random_block: {number: 3, area: 0.3}}]}", r"random_block: expected either number \(of rect"),
        ("data: {transforms: [{random_block: {side: [0.4, 0.2]}}]}", r"random_block: side: the first value must not be greater"),
        ("data: {transforms: [{random_region: {area: [0.3, 0.2]}}]}", r"random_region: area: the first value must not"),
        ("data: {transforms: [{center: {side: 1.0}}]}", r"center.side: input should be less than 1"),
        ("data: {transforms: [{center: {fill: white}}]}", r"center.fill: input should be 'black', 'mean' or 'noise' \(given: 'white'\)"),
        ("data: {views: 3}", r"data.views: input should be less than or equal to 2"),
        ("data: {transforms: [{grid: {ratio: [0, 0.0]}}]}", r"grid: ratio: at least one fraction must be above 0"),
        ("data: {transforms: [{grid: {ratio: 1.0}}]}", r"grid.ratio.*less than 1"),
        (
            "data: {transforms: [{grid: {ratio: [0, 0.5], complementary: true}}]}",
            r"grid: ratio: with complementary: true, a fraction of 0 would erase the whole second view",
        ),
        ("data: {transforms: [{random_resized_crop: {scale: [0.5, 1.5]}}]}", r"scale: a part of the image is at most 1"),
        ("data: {transforms: [{random_resized_crop: {ratio: [2.0, 0.5]}}]}", r"ratio: the first value must not be greater"),
        ("data: {transforms: [{gaussian_blur: {sigma: [2.0, 0.5]}}]}", r"sigma: the first value must not be greater"),
        ("data: {transforms: [{color_jitter: {hue: 0.6}}]}", r"color_jitter.hue: .*or equal to 0.5"),
        ("loss: {reconstruction_weight: 0.5}", r"reconstruction_weight needs agreement"),
        ("loss: {reconstruction_weight: 0, agreement: {weight: 0}}", r"must not both be 0"),
        ("loss: {reconstruction_weight: 0, agreement: {}, adversarial: {}}", r"adversarial judges restored images"),
        ("loss: {agreement: {type: vicreg, temperature: 0.1}}", r"vicreg has no temperature"),
        ("loss: {agreement: {type: vicreg, coefficients: [1.0]}}", r"coefficients: vicreg has 3 of them, not 1"),
        ("loss: {agreement: {projector: []}}", r"projector: .*at least 1 item"),
        ("data: {transforms: [{center: null}]}", r"center is empty; for its defaults write `center: \{\}`"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_used_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_names_are_read_in_any_case_and_a_discriminator_has_its_own_optimizer(tmp_path):
    config = load(
        tmp_path, "loss: {function: l2, source: Sigmoid, adversarial: {optimizer: {type: sgd, momentum: 0.5}}}"
    )
    own = config.loss.adversarial.optimizer
    assert (config.loss.function, config.loss.source, config.optimizer.type) == ("MSE", "sigmoid", "Adam")
    assert (own.type, own.learning_rate, own.momentum) == ("SGD", 2e-4, 0.5)
    assert load(tmp_path, "loss: {adversarial: {}}").loss.adversarial.optimizer.beta1 == 0.5


def test_targets_made_by_a_mask_have_the_inputs_channels(tmp_path):
    steps = "[{resize: [32, 32]}, {random_patches: {number: 1, size: 3}}]"
    text = f"data: {{input_grayscale: true, input_path: a, transforms: {steps}}}"
    assert load(tmp_path, text).target_shape == (32, 32, 1)
    assert load(tmp_path, text, "data.target_path=b").target_shape == (32, 32, 3)
    text = "data: {type: images, target_is_mask: true, transforms: [{normalize: {}}, {resize: [8, 8]}]}"
    assert load(tmp_path, text).target_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ([RESIZE], (32, 32, 3)),
        ([{"normalize": {"mean": 0.5, "std": 0.5}}, {"jitter_crop": 0.1}, {"random_rotate": 20.0}, RESIZE], (32, 32, 3)),
        ([{"resize": [64, 48]}, {"center_crop": [40, 32]}, {"grayscale": True}], (32, 40, 1)),
        ([RESIZE, {"convert_color": "RGB2GRAY"}, {"convert_color": "GRAY2BGR"}], (32, 32, 3)),
        ([RESIZE, {"jitter_crop": 0.1}], (None, None, 3)),
    ],
)  # fmt: skip
def test_shapes_follow_from_the_transforms(steps, shape):
    config = Config.model_validate({"data": {"transforms": steps}})
    assert config.input_shape == shape
    assert (config.target_shape[:2], config.target_channels) == (shape[:2], 3)


def test_the_reference_in_the_docs_is_that_of_the_schema():
    spec = importlib.util.spec_from_file_location("config_reference", ROOT / "scripts" / "config_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert "`data.transforms[].random_patches.size`" in text
    assert script.updated(text) == text, "run scripts/config_reference.py"
