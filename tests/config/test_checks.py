"""What cannot work for a command is refused before anything slow starts."""

import pytest
from conftest import write_config

from tfinpaint.cli.options import load_checked
from tfinpaint.config.checks import check_command
from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import ConfigError

RESIZE = {"resize": [32, 32]}
PATCHES = {"random_patches": {"number": 1, "size": 3}}
TWO_VIEWS = {"loss": {"agreement": {}}, "data__views": 2, "model__encoder_output": "after_relu"}


def mask(**section):
    return [RESIZE, section]


def refuse(images, tmp_path, command, changes, message, ranks=1):
    config = load_config(write_config(tmp_path / "c.yaml", command, images, encoder="tiny", **changes))
    with pytest.raises(ConfigError, match=message) as refusal:
        check_command(config, command, ranks)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__batch_size": 9}, r"data.batch_size 9 .* 2; use 8 or 10"),
        ({"data__batch_size": 8, "accumulate_steps": 3}, r"batch_size 8 is the batch over all ranks and must .* accumulate_steps, 2 x 3; use 6 or 12"),
        ({"data__batch_size": 8, "data__batch_size_per_rank": True, "accumulate_steps": 3},
         r"batch_size 8 is the batch of each rank and must be divisible by accumulate_steps, 3; use 6 or 9"),
        ({"distributed": {"lr_scaling": "linear"}}, r"distributed.lr_scaling needs data.batch_size_per_rank: true"),
        (TWO_VIEWS | {"jit_compile": True}, r"loss.agreement compares views of all ranks .* XLA .*; set jit_compile: false"),
        ({"distributed": {"sync_batchnorm": True}, "jit_compile": True}, r"distributed.sync_batchnorm .* XLA .*; set jit_compile: false"),
    ],
)  # fmt: skip
def test_what_cannot_work_on_two_ranks_is_refused(images, tmp_path, changes, message):
    refuse(images, tmp_path, "pretrain", changes, message, ranks=2)


@pytest.mark.parametrize(
    ("command", "changes", "message"),
    [
        # the wrong command
        ("pretrain", {"data__target_type": "labels", "data__type": None}, r"pretrain needs data.target_type: images"),
        ("pretrain", {"loss__function": "NLL"}, r"NLL scores labels"),
        ("classify", {"loss__function": "BCE"}, r"BCE scores images"),
        ("classify", {"data__target_path": "."}, r"the labels of classify are folder names"),
        ("classify", {"loss": {"target": "image"}}, r"loss.target is for pretrain only"),
        ("classify", {"loss": {"adversarial": {}}}, r"loss.adversarial is for pretrain only"),
        ("classify", {"model": {"bottleneck": "channelwise"}}, r"model.bottleneck is for pretrain only"),
        ("classify", {"model": {"decoder": "batchnorm"}}, r"model.decoder is for pretrain only"),
        ("classify", {"data__transforms": mask(grid={"size": 8})}, r"classify takes no mask; remove grid"),
        (
            "pretrain", {"data__transforms": mask(grid={"size": 8, "complementary": True})},
            r"grid.complementary is for two views of each image; set data.views: 2",
        ),
        # paths
        ("pretrain", {"data__input_path": "/no/such"}, r"data.input_path: no such folder: /no/such"),
        ("pretrain", {"data__target_is_mask": True, "loss__function": "NLL", "data__target_path": "/no/such"}, r"target_path: no such"),
        ("classify", {"layers": "net.json"}, r"layers: not a file: .*net.json"),
        ("classify", {"data__input_path": None}, r"there is no training: set checkpoints.load to the weights to use"),
        ("classify", {"data__input_path": None, "data__test_input_path": None}, r"neither input_path .* nor test_input"),
        ("pretrain", {"data__test_input_path": None, "data__test_output_path": "x"}, r"test_output_path needs"),
        ("classify", {"data__test_output_path": "../data/testing"}, r"test_output_path .* must not contain each other"),
        ("classify", {"data__test_output_path": "../data/testing/cold/x"}, r"test_input_path .* must not contain"),
        ("classify", {"data__test_output_path": "../data"}, r"data.input_path .* must not contain each other"),
        ("pretrain", {"data__test_target_path": ".", "data__test_input_path": None}, r"needs the inputs of these targets"),
        ("pretrain", {"data__input_path": None, "checkpoints__load": ".", "data__transforms": [RESIZE]},
         r"inference without targets needs data.test_output_path"),
        # transforms and sizes
        ("classify", {"data__transforms": [{"resize": [30, 32]}]}, r"images of 30 x 32: .*multiples of 32"),
        ("pretrain", {"data__transforms": [PATCHES]}, r"a resize must come before random_patches"),
        ("pretrain", {"data__transforms": [RESIZE]}, r"target_path is missing: .*`- random_patches"),
        ("pretrain", {"data__transforms": [RESIZE, PATCHES, {"rotate": 3}]}, r"random_patches must come last"),
        ("pretrain", {"data__target_transforms": [PATCHES]}, r"random_patches .*; move it to the end of data.transforms"),
        ("pretrain", {"data__target_transforms": [{"resize": [64, 64]}]}, r"inputs are 32 x 32, the targets 64 x 64"),
        ("classify", {"data__transforms": [{"rotate": 3.0}]}, r"must produce images of one size"),
        ("classify", {"data__transforms": [RESIZE, {"jitter_crop": 0.5}]}, r"must produce images of one size"),
        ("classify", {"data__transforms": [RESIZE, {"center_crop": [64, 32]}]}, r"larger than the image, 32 x 32"),
        ("classify", {"data__transforms": [{"rotate": 3.0}, {"center_crop": [32, 32]}]}, r"center_crop must come first"),
        ("classify", {"data__transforms": [RESIZE, {"convert_color": "GRAY2RGB"}]}, r"GRAY2RGB cannot convert 3"),
        ("classify", {"data__transforms": [RESIZE, {"normalize": {"mean": [0.5, 0.5], "std": 1.0}}]}, r"2 values for 3"),
        ("pretrain", {"data__target_is_mask": True}, r"makes the targets from the input images, which are no label maps"),
        ("pretrain", {"data__transforms": [{"gaussian_blur": {}}, RESIZE, PATCHES]}, r"a resize must come before gaussian_blur"),
        # losses
        ("pretrain", {"loss": {"target": "masked", "function": "Dice"}}, r"need target images and loss.function BCE, MSE or L1"),
        ("pretrain", {"loss": {"target": "masked", "function": "L2", "normalize_patches": 12}},
         r"normalize_patches 12 does not divide the target, 32 x 32"),
        ("pretrain", {"loss": {"target": "masked"}, "data__target_transforms": [{"rotate": 3.0}]},
         r"need target_transforms that move no pixels"),
        ("pretrain", {"loss": {"adversarial": {}}, "data__target_transforms": [{"grayscale": True}]},
         r"loss.adversarial compares .* but data.target_transforms change the targets"),
        ("pretrain", {"loss": {"adversarial": {}}, "data__transforms": [RESIZE, {"normalize": {"mean": 0.5}}, PATCHES]},
         r"but normalize in data.transforms changes values before the mask; move it to data.input_transforms"),
        ("pretrain", {"loss": {"function": "MSE", "target": "image", "normalize_patches": 16}, "data__target_is_mask": True,
                      "data__target_path": "..", "data__test_target_path": ".."}, r"normalize_patches needs target images"),
        ("pretrain", {"loss": {"target": "masked"}, "data__transforms": [RESIZE], "data__target_path": "."},
         r"loss.target: masked needs a mask at the end of data.transforms"),
        ("classify", {"data__transforms": [{"resize": [28, 32]}], "model__stem": "small"}, r"28 x 32: .*multiples of 8"),
        ("classify", {"model": {"encoder": "densenet121"}}, r"densenet121: .* set model.encoder_output: after_relu"),
        ("classify", {"model": {"encoder": "convnext_tiny", "encoder_output": "after_relu", "stem": "small"}},
         r"model.encoder: convnext_tiny: stem: small is for the ResNets; set model.stem: standard"),
        ("pretrain", {"model": {"encoder": "convnext_tiny", "encoder_output": "after_relu", "batchnorm_visible_only": True}},
         r"batchnorm_visible_only: convnext_tiny has no batch norms"),
        ("pretrain", {"layers": [{}], "model": {"stem": "small"}}, r"model.stem is for the built-in network"),
        ("pretrain", {"layers": [{}], "model": {"bottleneck": "channelwise"}}, r"bottleneck is for the built-in network"),
        ("pretrain", {"layers": [{}], "model": {"decoder": "batchnorm"}}, r"decoder is for the built-in network"),
        ("classify", {"layers": [{}], "model": {"head": "pool"}}, r"model.head is for the built-in network"),
        ("classify", {"layers": [{}], "optimizer__layer_decay": 0.7}, r"layer_decay is for the built-in network"),
        ("classify", {"layers": [{}], "optimizer__unfreeze_every": 2}, r"unfreeze_every is for the built-in network"),
        ("pretrain", {"optimizer__unfreeze_every": 2}, r"optimizer.unfreeze_every is for classify only"),
        ("pretrain", {"data__mixup": 0.2}, r"data.mixup mixes images with their classes; it is for classify only"),
        ("pretrain", {"layers": [{}], "probe": {}}, r"probe takes the features of the built-in encoder"),
        ("classify", {"optimizer__ema_decay": 0.9, "model__batchnorm_batches": 0}, r"ema_decay needs model.batchnorm_batches"),
        ("pretrain", {"model": {"head": "pool"}}, r"model.head is for classify only"),
        ("pretrain", {"loss__weight": "balanced", "loss__function": "NLL", "data__target_is_mask": True},
         r"loss.weight: balanced is for classify only"),
        ("classify", {"data__validation_fraction": 0.2, "checkpoints": {"save": None}}, r"but checkpoints.save is null"),
        ("classify", {"model": {"batchnorm_visible_only": True}}, r"batchnorm_visible_only is for pretrain only"),
        ("pretrain", {"model": {"batchnorm_visible_only": True}, "data__transforms": [RESIZE], "data__target_path": "."},
         r"batchnorm_visible_only needs a mask"),
        ("pretrain", {"model": {"batchnorm_visible_only": True}, "data__input_transforms": [{"rotate": 90.0}]},
         r"needs inputs as they were erased; move rotate from data.input_transforms"),
        ("pretrain", {"model": {"batchnorm_visible_only": True}, "distributed": {"sync_batchnorm": True}},
         r"takes the statistics of each rank; remove sync_batchnorm"),
        ("pretrain", {"data__validation_fraction": 0.2}, r"data.validation_fraction is for classify only"),
        ("classify", {"early_stopping": {}}, r"early_stopping needs validation images: set data.validation_fraction"),
        ("classify", {"layers": [{}], "recompute": True}, r"recompute: true is for the built-in networks"),
        # two views
        ("classify", {"data__views": 2}, r"data.views is for pretrain only"),
        ("classify", {"loss": {"function": "NLL", "agreement": {}}}, r"loss.agreement is for pretrain only"),
        ("pretrain", {"loss": {"agreement": {}}}, r"loss.agreement compares two views of each image; set data.views: 2"),
        ("pretrain", {"loss": {"agreement": {}}, "data__views": 2}, r"set model.encoder_output: after_relu"),
        ("pretrain", {"loss": {"agreement": {}}, "data__views": 2, "layers": [{}]}, r"built-in encoder; remove `layers`"),
        ("pretrain", TWO_VIEWS | {"loss": {"reconstruction_weight": 0, "agreement": {}}, "data__test_output_path": "out"},
         r"test_output_path is for restored images, .* the decoder is not trained"),
        ("pretrain", TWO_VIEWS | {"accumulate_steps": 2}, r"set accumulate_steps: 1, and recompute: true"),
        ("pretrain", TWO_VIEWS | {"data__transforms": [RESIZE]}, r"target_path is missing: .*`- random_patches"),
    ],
)  # fmt: skip
def test_what_cannot_work_for_a_command_is_refused(images, tmp_path, command, changes, message):
    refuse(images, tmp_path, command, changes, message)


@pytest.mark.parametrize(
    ("steps", "unmeasured"),
    [([RESIZE], None), (mask(grid={"size": 8}), "loss.reconstruction_weight is 0, so the decoder is not trained")],
)
def test_views_that_agree_and_are_not_restored_need_no_mask_and_no_targets(images, tmp_path, steps, unmeasured):
    changes = TWO_VIEWS | {"loss": {"reconstruction_weight": 0, "agreement": {}}, "data__transforms": steps}
    path = write_config(tmp_path / "c.yaml", "pretrain", images, encoder="tiny", **changes)
    config = check_command(load_config(path), "pretrain", 2)
    assert (config.reconstructs, config.measures_pixels) == (False, False)
    assert unmeasured is None or config.unmeasured == unmeasured


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (mask(random_patches={"size": 33, "number": 1}), r"size 33 is larger than the image"),
        (mask(random_patches={"size": 32, "number": 1}), r"size 32 erases all of the image"),
        (mask(random_patches={"size": 20, "area": 0.1}), r"area 0.1 of the image, 32 x 32 is less than one square of 20"),
        ([{"resize": [128, 128]}, {"random_patches": {"size": 1, "area": 0.5}}], r"more than 4096 squares to erase 0.5 of"),
        (mask(random_block={"number": 1, "side": [0.5, 0.99]}), r"side 0.99 erases all of the image"),
        (mask(random_block={"side": [0.1, 0.6]}), r"side 0.6 allows rectangles larger than the area, 0.25 of"),
        ([{"resize": [256, 256]}, {"random_block": {"side": [0.001, 0.1]}}], r"side 0.001 needs more than 4096 rectangles"),
        (mask(center={"side": 0.01}), r"side 0.01 erases 0 x 0 pixels of the image"),
        (mask(center={"side": 0.99}), r"side 0.99 erases 32 x 32 pixels of the image"),
        (mask(random_region={"area": [0.0001, 0.5]}), r"area 0.0001 of the image, 32 x 32 is less than one pixel"),
        (mask(grid={"size": 12}), r"grid.size 12 does not divide the image"),
        (mask(grid={"size": 16, "ratio": 0.95}), r"grid.ratio 0.95 erases 4 of 4 cells"),
        (mask(grid={"size": 16, "ratio": [0, 0.5, 0.1]}), r"grid.ratio 0.1 erases 0 of 4 cells"),
        ([{"center": {}}], r"a resize must come before center"),
        ([RESIZE, {"center": {}}, PATCHES], r"center must come last"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_the_images_are_refused(images, tmp_path, steps, message):
    refuse(images, tmp_path, "pretrain", {"data__transforms": steps}, f"^data.transforms.*: .*{message}")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("run/model_checkpoints", r"lies in checkpoints.save, where this run deletes old checkpoints"),
        ("x", r"loss.perceptual.encoder: no such checkpoint: .*/x"),
    ],
)
def test_an_encoder_to_compare_features_must_be_there_and_stay(images, tmp_path, encoder, message):
    (tmp_path / "run" / "model_checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "model_checkpoints" / "encoder.weights.h5").touch()
    changes = {"loss": {"perceptual": {"encoder": encoder}, "target": "image"}}
    with pytest.raises(ConfigError, match=message):
        load_checked(
            write_config(tmp_path / "c.yaml", "pretrain", images, encoder="tiny", **changes), [], "pretrain", 1
        )


def test_what_is_not_used_is_not_checked_and_open_keys_follow_the_command(images, tmp_path):
    changes = {"data__test_input_path": None, "data__test_batch_size": 5, "loss": {}, "data__target_type": None}
    for command, target_type, function in (("pretrain", "images", "BCE"), ("classify", "labels", "NLL")):
        config = load_config(
            write_config(tmp_path / "c.yaml", command, images, encoder="tiny", **changes, data__type=None)
        )
        complete = check_command(config, command, 2)
        assert (complete.data.target_type, complete.loss.function) == (target_type, function)


def test_a_single_image_is_a_test_set_and_no_training_set(images, tmp_path):
    image = images / "testing" / "cold" / "000.png"
    config = load_config(write_config(tmp_path / "c.yaml", "classify", images, data__test_input_path=str(image)))
    assert check_command(config, "classify", 1).data.test_input_path == image
    refuse(
        images,
        tmp_path,
        "classify",
        {"data__input_path": str(image)},
        r"data.input_path: is a file: .*000.png; expected a folder",
    )
