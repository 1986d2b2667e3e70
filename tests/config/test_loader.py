"""The schema, its files, overrides and refusals."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, write_config

from tfinpaint.config.checks import check_command
from tfinpaint.config.loader import dump_config, load_config
from tfinpaint.config.schema import Config, ConfigError

RESIZE = {"resize": [32, 32]}
PATCHES = {"random_patches": {"number": 1, "size": 3}}
RECIPES = sorted((ROOT / "configs").glob("*/*.yaml"))

# The keys of the tutorial's pretraining file, in the form of the seed tool.
SEED_JSON = {
    "neural_network": {
        "num_epochs": 100,
        "outfile": "out_inpaint.txt",
        "layers": "./network.json",
        "checkpoints": {"save": "./model_checkpoints/", "interval": 10},
        "data": {
            "type": "images",
            "input_path": "./natural_images/training/",
            "target_path": "./natural_images/training/",
            "batch_size": 128,
            "preload": True,
            "transforms": [{"resize": [128, 128]}, {"random_patches": {"number": 16, "size": 16}}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.001},
        "loss": {"function": "BCE"},
    }
}


def load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def test_the_seed_tools_json_is_read_with_tabs_and_outer_key(tmp_path):
    path = tmp_path / "seed.json"
    path.write_text(json.dumps(SEED_JSON, indent="\t"))
    config = load_config(path)
    assert config.num_epochs == 100
    assert config.data.input_type == config.data.target_type == "images"
    assert config.data.input_path == config.data.target_path == tmp_path / "natural_images" / "training"
    assert config.checkpoints.save == tmp_path / "model_checkpoints"
    assert config.outfile == tmp_path / "out_inpaint.txt"
    assert config.input_shape == (128, 128, 3)
    assert (config.mask.random_patches.number, config.mask.random_patches.size) == (16, 16)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_is_valid_and_tells_its_command(path):
    config = load_config(path)
    assert config.workdir.is_relative_to(ROOT / "runs")
    head = path.read_text().split("\nworkdir")[0]
    for word in ("horovodrun -np", f"--config configs/{path.parent.name}/{path.name}", "Hardware", "Time", "Result"):
        assert word in head


def test_the_resolved_configuration_reads_back_equal(tmp_path):
    config = load(tmp_path, "data: {transforms: [{resize: [64, 32]}], input_path: here}\nworkdir: run\n")
    again = tmp_path / "elsewhere" / "resolved.yaml"
    again.parent.mkdir()
    again.write_text(dump_config(config))
    assert load_config(again) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "num_epochs: 2\ndata:\n  batchsize: 3\n",
            r"config.yaml:3: unknown key data.batchsize; did you mean data.batch_size",
        ),
        ("num_epoch: 2\n", r"config.yaml:1: unknown key num_epoch; did you mean num_epochs"),
        (
            "data:\n  transforms:\n    - resiz: [1, 2]\n",
            r"config.yaml:3: unknown key data.transforms.0.resiz; .*0.resize",
        ),
        ("seed: 1\nnum_epochs: '2'\n", r"config.yaml:2: num_epochs: .*integer \(given: '2'\)"),
        ("seed: 1\nseed: 2\n", r"config.yaml:2: seed is given twice"),
        ("optimizer: {type: Adamm}\n", r"config.yaml:1: optimizer.type: .*'SGD', 'Adagrad', 'Adam', .*LAMB"),
        ("optimizer: {type: SGD, beta1: 0.5}\n", r"optimizer: SGD has no beta1"),
        ("optimizer: {type: SGD, nesterov: true}\n", r"nesterov needs a momentum above 0"),
        ("optimizer: {lr_scheduler: {type: Step, gamma: 0.1}}\n", r"Step needs step_size"),
        ("optimizer: {lr_scheduler: {type: Cosine, gamma: 0.1}}\n", r"Cosine has no gamma"),
        ("optimizer: {lr_scheduler: {type: MultiStep, gamma: 0.1, milestones: [3, 2]}}\n", r"milestones must rise"),
        ("loss: {function: MSE, weight: [1.0, 2.0]}\n", r"MSE has no weight"),
        ("data: {transforms: [{normalize: {mean: 0.5, std: 0.0}}]}\n", r"standard deviation of 0"),
        ("data: {transforms: [{convert_color: RGB2LAB}]}\n", r"convert_color: .*'BGR2RGB'"),
        ("model:\n  trainable: heads_only\n", r"config.yaml:2: model.trainable: .*head_only"),
        ("data: {batch_size: 0}\n", r"data.batch_size: .*greater than or equal to 1"),
        ("num_epochs: [\n", r"config.yaml:\d: not valid YAML"),
        ("- a\n- b\n", r"expected a mapping"),
        ("data: {type: images, target_type: labels}\n", r"data: type: images stands for input_type and target_type"),
        ("data: 3\n", r"config.yaml:1: data: input should be a mapping of keys to values"),
        ("data: {transforms: [{resize: null}]}\n", r"expected exactly one of resize"),
        ("data: {transforms: [{resize: [-32, 32]}]}\n", r"greater than or equal to 1"),
        (
            "data: {transforms: [{random_patches: {number: 4}}]}\n",
            r"config.yaml:1: data.transforms.0.random_patches.size: Field required",
        ),
        ("data: &d {transforms: *d}\n", r"config.yaml"),
        ("outfile: 2024-13-45\n", r"not valid YAML: month must be"),
        ("data: {input_path: ''}\n", r"data.input_path: '' is not a usable path"),
        ("data: {input_path: ~nosuchuser/x}\n", r"data.input_path: '~nosuchuser/x' is not a usable path"),
        ("data: {transforms: [{resize: [32, 32], random_horizontal_flip: 0.5}]}\n", r"expected exactly one of resize"),
    ],
)
def test_a_wrong_file_is_refused_with_line_key_and_remedy(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_overrides_are_typed_and_may_reach_into_lists(tmp_path):
    text = "data: {transforms: [{resize: [64, 64]}]}\n"
    config = load(
        tmp_path, text, "optimizer.learning_rate=1e-4", "data.transforms.0.resize=[32, 96]", "steps_per_epoch=null"
    )
    assert config.optimizer.learning_rate == 1e-4
    assert config.input_shape == (96, 32, 3)
    assert config.steps_per_epoch is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_epochs=many", r"--set num_epochs=many: num_epochs: .*integer"),
        ("num_epochs", r"expected KEY=VALUE"),
        ("optimiser.type=SGD", r"--set optimiser.type=SGD: unknown key optimiser; did you mean optimizer"),
        ("data.transforms.3.resize=[1, 1]", r"there is no"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "data: {transforms: [{resize: [64, 64]}]}\n", override)


def test_an_error_is_blamed_on_the_file_or_the_override_that_made_it(tmp_path):
    with pytest.raises(ConfigError, match=r"^.*config.yaml:1: optimizer: SGD has no beta1"):
        load(tmp_path, "optimizer: {type: SGD, beta1: 0.5}\n", "optimizer.learning_rate=0.1")


def test_overrides_fill_empty_sections_and_take_paths_literally(tmp_path):
    config = load(tmp_path, "data:\n", "data.input_path=/x/my data #1/a: b", "data.test_input_path=null")
    assert config.data.input_path == Path("/x/my data #1/a: b")
    assert config.data.test_input_path is None


def test_yaml_booleans_and_missing_keys_of_an_override(tmp_path):
    assert load(tmp_path, "jit_compile: off\n").jit_compile is False
    with pytest.raises(ConfigError, match=r"^--set .*: optimizer.lr_scheduler.type: Field required"):
        load(tmp_path, "optimizer: {type: Adam}\n", "optimizer.lr_scheduler.warmup_epochs=1")


def test_merge_keys_are_no_duplicates(tmp_path):
    text = "optimizer: {<<: {type: SGD, learning_rate: 0.1}, learning_rate: 0.2}\n"
    assert load(tmp_path, text).optimizer.learning_rate == 0.2


def test_paths_in_the_file_and_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "c.yaml").write_text("data: {input_path: images}\noutfile: log.txt\n")
    config = load_config(folder / "c.yaml", ["data.test_input_path=held_out"], Path("run"))
    assert config.data.input_path == folder / "images"
    assert config.data.test_input_path == tmp_path / "held_out"
    assert config.workdir == tmp_path / "run"
    assert config.outfile == tmp_path / "run" / "log.txt"


@pytest.mark.parametrize(
    ("task", "changes", "ranks", "message"),
    [
        ("pretrain", {"data__batch_size": 9}, 2, r"data.batch_size 9 .* 2; use 8 or 10"),
        (
            "pretrain",
            {"data__batch_size": 8, "accumulate_steps": 3},
            2,
            r"batch_size 8 is the batch over all ranks and must .* accumulate_steps, 2 x 3; use 6 or 12",
        ),
        (
            "pretrain",
            {"data__batch_size": 8, "data__batch_size_per_rank": True, "accumulate_steps": 3},
            2,
            r"batch_size 8 is the batch of each rank and must divide by accumulate_steps, 3; use 6 or 9",
        ),
        (
            "pretrain",
            {"distributed": {"lr_scaling": "linear"}},
            2,
            r"distributed.lr_scaling needs data.batch_size_per_rank: true",
        ),
        (
            "pretrain",
            {"distributed": {"sync_batchnorm": True}, "jit_compile": True},
            2,
            r"distributed.sync_batchnorm .* XLA .*; set jit_compile: false",
        ),
        ("pretrain", {"data__input_path": "/no/such"}, 1, r"data.input_path: no such folder: /no/such"),
        (
            "pretrain",
            {"data__transforms": [{"resize": [32, 32]}, {"random_patches": {"number": 1, "size": 33}}]},
            1,
            r"33 is larger than the image",
        ),
        ("classify", {"data__transforms": [{"resize": [30, 32]}]}, 1, r"images of 30 x 32: .*multiples of 32"),
        ("pretrain", {"data__transforms": [PATCHES]}, 1, r"a resize must come before random_patches"),
        ("pretrain", {"data__transforms": [{"resize": [32, 32]}]}, 1, r"target_path is missing: .*`- random_patches"),
        ("pretrain", {"data__transforms": [RESIZE, PATCHES, {"rotate": 3}]}, 1, r"random_patches must come last"),
        ("pretrain", {"data__target_transforms": [PATCHES]}, 1, r"its place is the end of data.transforms"),
        (
            "pretrain",
            {"data__target_transforms": [{"resize": [64, 64]}]},
            1,
            r"inputs are 32 x 32, the targets 64 x 64",
        ),
        (
            "pretrain",
            {"data__target_is_mask": True, "loss__function": "NLL", "data__target_path": "/no/such"},
            1,
            r"target_path: no such",
        ),
        ("classify", {"data__transforms": [{"rotate": 3.0}]}, 1, r"must leave images of one size"),
        ("classify", {"data__transforms": [RESIZE, {"jitter_crop": 0.5}]}, 1, r"must leave images of one size"),
        ("classify", {"data__transforms": [RESIZE, {"center_crop": [64, 32]}]}, 1, r"larger than the image, 32 x 32"),
        (
            "classify",
            {"data__transforms": [RESIZE, {"convert_color": "GRAY2RGB"}]},
            1,
            r"GRAY2RGB is given images of 3",
        ),
        (
            "classify",
            {"data__transforms": [RESIZE, {"normalize": {"mean": [0.5, 0.5], "std": 1.0}}]},
            1,
            r"2 values for 3",
        ),
        ("classify", {"data__target_path": "."}, 1, r"labels are folder names"),
        ("classify", {"data__input_path": None}, 1, r"nothing is trained: name the weights to use"),
        (
            "classify",
            {"data__input_path": None, "data__test_input_path": None},
            1,
            r"neither input_path .* nor test_input",
        ),
        ("pretrain", {"data__test_input_path": None, "data__test_output_path": "x"}, 1, r"test_output_path needs"),
        ("classify", {"data__test_output_path": "../data/testing"}, 1, r"test_output_path .* must lie apart"),
        ("classify", {"data__test_output_path": "../data/testing/cold/x"}, 1, r"test_input_path .* must lie apart"),
        ("classify", {"data__test_output_path": "../data"}, 1, r"data.input_path .* must lie apart"),
        (
            "pretrain",
            {"data__test_target_path": ".", "data__test_input_path": None},
            1,
            r"needs the inputs of these targets",
        ),
        (
            "pretrain",
            {"data__target_is_mask": True},
            1,
            r"random_patches makes the targets of the inputs, which are no masks",
        ),
        (
            "classify",
            {"data__transforms": [{"rotate": 3.0}, {"center_crop": [32, 32]}]},
            1,
            r"center_crop must come first",
        ),
        (
            "pretrain",
            {"data__input_path": None, "checkpoints__load": ".", "data__transforms": [RESIZE]},
            1,
            r"inference without targets needs data.test_output_path",
        ),
        (
            "pretrain",
            {"data__target_type": "labels", "data__type": None},
            1,
            r"pretrain needs data.target_type: images",
        ),
        ("pretrain", {"loss__function": "NLL"}, 1, r"NLL scores labels"),
        ("classify", {"loss__function": "BCE"}, 1, r"BCE scores images"),
        ("classify", {"layers": "net.json"}, 1, r"layers: not a file: .*net.json"),
    ],
)
def test_what_cannot_work_for_a_task_is_refused(images, tmp_path, task, changes, ranks, message):
    config = load_config(write_config(tmp_path / "c.yaml", task, images, **changes))
    with pytest.raises(ConfigError, match=message):
        check_command(config, task, ranks)


def mask(**section):
    return [RESIZE, section]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (mask(random_patches={"size": 8}), r"random_patches: expected number \(of squares\) or area"),
        (mask(random_patches={"size": 8, "number": 1, "area": 0.5}), r"random_patches: expected number .* or area"),
        (
            mask(random_patches={"size": 8, "area": 0.9}),
            r"random_patches.area: input should be less than or equal to 0.75",
        ),
        (mask(random_block={"number": 3, "area": 0.3}), r"random_block: expected number \(of blocks\) or area"),
        (mask(random_block={"side": [0.4, 0.2]}), r"random_block: side: the first of the two must not be the greater"),
        (
            mask(random_region={"area": [0.3, 0.2]}),
            r"random_region: area: the first of the two must not be the greater",
        ),
        (mask(center={"side": 1.0}), r"center.side: input should be less than 1"),
        (mask(center={"fill": "white"}), r"center.fill: input should be 'black', 'mean' or 'noise' \(given: 'white'\)"),
        (mask(middle={}), r"unknown key data.transforms.1.middle"),
        (mask(center=None), r"center is empty; for its defaults write `center: \{\}`"),
        (mask(random_patches={"size": 1, "number": 5000}), r"number: input should be less than or equal to 4096"),
        ([RESIZE, PATCHES | {"center": {}}], r"expected exactly one of .*random_patches, center, random_block"),
    ],
)
def test_masks_that_cannot_be_read(images, tmp_path, steps, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(tmp_path / "c.yaml", "pretrain", images, data__transforms=steps))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (mask(random_patches={"size": 32, "number": 1}), r"size 32 erases all of the image"),
        (mask(random_block={"number": 1, "side": [0.5, 0.99]}), r"side 0.99 erases all of the image"),
        (
            [{"resize": [128, 128]}, {"random_patches": {"size": 1, "area": 0.5}}],
            r"more than 4096 squares to erase 0.5 of",
        ),
        ([{"resize": [256, 256]}, {"random_block": {"side": [0.001, 0.1]}}], r"more than 4096 blocks of 0.001"),
        (
            mask(random_patches={"size": 20, "area": 0.1}),
            r"area 0.1 of the image, 32 x 32 is less than one square of 20",
        ),
        (mask(center={"side": 0.01}), r"side 0.01 erases 0 x 0 pixels of the image"),
        (mask(center={"side": 0.99}), r"side 0.99 erases 32 x 32 pixels of the image"),
        (
            mask(random_block={"side": [0.1, 0.6]}),
            r"a block of up to 0.6 of the sides can be larger than the area, 0.25",
        ),
        (mask(random_region={"area": [0.0001, 0.5]}), r"area 0.0001 of the image, 32 x 32 is less than one pixel"),
        (mask(grid={"size": 12}), r"grid.size 12 does not divide the image"),
        (mask(grid={"size": 16, "ratio": 0.95}), r"grid.ratio 0.95 erases 4 of 4 cells"),
        ([{"center": {}}], r"a resize must come before center"),
        ([RESIZE, {"center": {}}, PATCHES], r"center must come last"),
    ],
)
def test_masks_that_do_not_fit_the_images(images, tmp_path, steps, message):
    config = load_config(write_config(tmp_path / "c.yaml", "pretrain", images, data__transforms=steps))
    with pytest.raises(ConfigError, match=f"^data.transforms.*: .*{message}"):
        check_command(config, "pretrain", 1)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("pretrain", {"loss": {"overlap": 2}}, r"overlap and normalize_patches need target: masked"),
        (
            "pretrain",
            {"loss": {"target": "image", "normalize_patches": 8}},
            r"normalize_patches needs function: MSE or L1",
        ),
        (
            "pretrain",
            {"loss": {"target": "masked", "function": "Dice"}},
            r"score pixels of images: by BCE, MSE \(L2\) or L1",
        ),
        (
            "pretrain",
            {"loss": {"target": "masked", "function": "L2", "normalize_patches": 12}},
            r"normalize_patches 12 does not divide 32 x 32",
        ),
        (
            "pretrain",
            {"loss": {"target": "masked"}, "data__target_transforms": [{"rotate": 3.0}]},
            r"need target_transforms that move no pixels",
        ),
        (
            "pretrain",
            {"loss": {"adversarial": {}}, "data__target_transforms": [{"grayscale": True}]},
            r"loss.adversarial compares pixels with the original's, but data.target_transforms change the targets",
        ),
        (
            "pretrain",
            {"loss": {"adversarial": {}}, "data__transforms": [RESIZE, {"normalize": {"mean": 0.5}}, PATCHES]},
            r"but normalize in data.transforms changes values before the mask; its place is input_transforms",
        ),
        (
            "pretrain",
            {"loss": {"perceptual": {"encoder": "run/model_checkpoints"}, "target": "image"}},
            r"lies in checkpoints.save, where this run deletes what is old",
        ),
        (
            "pretrain",
            {
                "loss": {"function": "MSE", "target": "image", "normalize_patches": 16},
                "data__target_is_mask": True,
                "data__target_path": "..",
                "data__test_target_path": "..",
            },
            r"normalize_patches needs targets that are images",
        ),
        (
            "pretrain",
            {"loss": {"perceptual": {"encoder": "x"}, "target": "image"}},
            r"loss.perceptual.encoder: no such checkpoint: .*/x",
        ),
        (
            "pretrain",
            {"loss": {"target": "masked"}, "data__transforms": [RESIZE], "data__target_path": "."},
            r"loss.target: masked needs a mask at the end of data.transforms",
        ),
        ("pretrain", {"loss": {"adversarial": {"weight": 1.0}}}, r"weight: input should be less than 1"),
        ("pretrain", {"loss": {"adversarial": {"optimizer": {"type": "SGD", "eps": 1e-3}}}}, r"SGD has no eps"),
        (
            "pretrain",
            {"layers": [{}], "model": {"bottleneck": "channelwise"}},
            r"bottleneck belongs to the built-in network",
        ),
        ("classify", {"loss": {"target": "image"}}, r"loss.target has no place in a classifier's configuration"),
        ("classify", {"loss": {"adversarial": {}}}, r"loss.adversarial has no place in a classifier's"),
        ("classify", {"model": {"bottleneck": "channelwise"}}, r"bottleneck lies before a decoder"),
        (
            "classify",
            {"data__transforms": mask(grid={"size": 8})},
            r"grid has no place in a classifier's configuration",
        ),
    ],
)
def test_losses_that_cannot_work_are_refused(images, tmp_path, task, changes, message):
    path = write_config(tmp_path / "c.yaml", task, images, **changes)
    (tmp_path / "run" / "model_checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match=message):
        check_command(load_config(path), task, 1)


def test_l2_is_mse_and_a_discriminator_has_an_optimizer_of_its_own(tmp_path):
    config = load(tmp_path, "loss: {function: l2, adversarial: {optimizer: {type: SGD, momentum: 0.5}}}\n")
    assert config.loss.function == "MSE"
    own = config.loss.adversarial.optimizer
    assert (own.type, own.learning_rate, own.momentum, config.optimizer.type) == ("SGD", 2e-4, 0.5, "Adam")
    assert load(tmp_path, "loss: {adversarial: {}}\n").loss.adversarial.optimizer.beta1 == 0.5


def test_what_is_not_used_is_not_checked_and_open_keys_follow_the_task(images, tmp_path):
    changes = {"data__test_input_path": None, "data__test_batch_size": 5, "loss": {}, "data__target_type": None}
    for task, target_type, function in (("pretrain", "images", "BCE"), ("classify", "labels", "NLL")):
        config = load_config(write_config(tmp_path / "c.yaml", task, images, **changes, data__type=None))
        complete = check_command(config, task, 2)
        assert (complete.data.target_type, complete.loss.function) == (target_type, function)


def test_targets_that_are_cut_have_the_inputs_channels(tmp_path):
    steps = "[{resize: [32, 32]}, {random_patches: {number: 1, size: 3}}]"
    text = f"data: {{input_grayscale: true, input_path: a, transforms: {steps}}}\n"
    assert load(tmp_path, text).target_shape == (32, 32, 1)
    assert load(tmp_path, text, "data.target_path=b").target_shape == (32, 32, 3)
    text = "data: {type: images, target_is_mask: true, transforms: [{normalize: {}}, {resize: [8, 8]}]}\n"
    assert load(tmp_path, text).target_shape == (8, 8, 1)


def test_a_wrong_configuration_is_refused_before_tensorflow_is_imported(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("num_epochz: 1\n")
    code = (
        "import sys; from tfinpaint import pretrain; "
        f"code = pretrain.main(['--config', {str(path)!r}]); "
        "sys.exit(77 if 'tensorflow' in sys.modules or 'keras' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {path}:1: unknown key num_epochz; did you mean num_epochs?\n"


def test_the_reference_in_the_docs_is_that_of_the_schema():
    spec = importlib.util.spec_from_file_location("config_reference", ROOT / "scripts" / "config_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert "`data.transforms[].random_patches.size`" in text
    assert script.updated(text) == text, "run scripts/config_reference.py"


def test_yaml_numbers_in_exponent_form(tmp_path):
    assert yaml.safe_load("1e-3") == "1e-3"  # why the project has a loader of its own
    assert load(tmp_path, "optimizer: {learning_rate: 1e-3}\n").optimizer.learning_rate == 0.001


def test_without_a_run_folder_outputs_lie_where_the_file_names_them(tmp_path):
    text = "outfile: log.txt\ndata: {test_output_path: predictions}\n"
    config = load(tmp_path, text)
    assert config.workdir == tmp_path / "config_run"
    assert config.outfile == tmp_path / "log.txt"
    assert config.data.test_output_path == tmp_path / "predictions"
    assert config.checkpoints.save == tmp_path / "config_run" / "model_checkpoints"  # not named: not beside the file
    config = load(tmp_path, text + "checkpoints: {save: ./model_checkpoints/}\n")
    assert config.checkpoints.save == tmp_path / "model_checkpoints"
    config = load(tmp_path, text + "checkpoints: {save: ./model_checkpoints/}\nworkdir: run\n")
    assert config.outfile == tmp_path / "run" / "log.txt"
    assert config.checkpoints.save == tmp_path / "run" / "model_checkpoints"


def test_type_and_grayscale_stand_for_two_keys_each(tmp_path):
    data = load(tmp_path, "data: {type: images, grayscale: true}\n").data
    assert (data.input_type, data.target_type, data.input_grayscale, data.target_grayscale) == (
        "images",
        "images",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ([RESIZE], (32, 32, 3)),
        (
            [{"normalize": {"mean": 0.5, "std": 0.5}}, {"jitter_crop": 0.1}, {"random_rotate": 20.0}, RESIZE],
            (32, 32, 3),
        ),
        ([{"resize": [64, 48]}, {"center_crop": [40, 32]}, {"grayscale": True}], (32, 40, 1)),
        ([RESIZE, {"convert_color": "RGB2GRAY"}, {"convert_color": "GRAY2BGR"}], (32, 32, 3)),
        ([RESIZE, {"jitter_crop": 0.1}], (None, None, 3)),
    ],
)
def test_shapes_are_known_from_the_steps(steps, shape):
    config = Config.model_validate({"data": {"transforms": steps}})
    assert config.input_shape == shape
    assert (config.target_shape[:2], config.target_channels) == (shape[:2], 3)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
HOSTILE = {
    "aliases of aliases": (BOMB, r"config.yaml:6: not valid YAML: more than 50000 values, those that aliases"),
    "merged aliases": (BOMB.replace("[", "{<<: [").replace("]", "]}").replace("x, x", "{k: 1}"), "more than 50000 values"),
    "alias of itself": ("layers: &a [*a]", r"config.yaml:1: not valid YAML: \*a stands for nothing"),
    "levels": ("a: " + "[" * 10**5, "config.yaml:1: not valid YAML: more than 64 levels"),
    "digits": ("seed: " + "1:" * 10**5 + "1", r"config.yaml:1: .* a value of 200001 characters; write it in quotes"),
    "digits by tag": ('seed: !!int "' + "1:" * 10**5 + '1"', "a value of 200001 characters"),
    "size": ("#" * (4 * 2**20 + 1), "config.yaml: is larger than 4 MiB"),
    "code": ("a: !!python/object/apply:os.system [touch canary]", "could not determine a constructor for the tag"),
    "null character": ("seed: 1\0", "config.yaml: not valid YAML: unacceptable character #x0000"),
    "list for key": ("? [1]\n: 2", "config.yaml:1: a key is a list"),
    "line break in key": ('"a\\nb": 1', "config.yaml:1: a key is a list, a mapping or no text"),
    "image side": ("data: {transforms: [{resize: [32, 9999]}]}", "resize.1: input should be less than or equal to 8192"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, case):
    text, expected = HOSTILE[case]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as raised:
        load_config(path)
    assert "\n" not in str(raised.value)
    assert not Path("canary").exists()


def test_aliases_and_a_byte_order_mark_are_read(tmp_path):
    text = "data: {transforms: [{resize: &size [32, 32]}], input_transforms: [{center_crop: *size}]}\n"
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8-sig")
    config = load_config(tmp_path / "config.yaml")
    assert config.data.input_transforms[0].center_crop == config.data.transforms[0].resize == [32, 32]


def test_paths_that_are_no_text_are_told(tmp_path):
    (tmp_path / "c.yaml").write_text("workdir: run\ndata: {type: images}\n")
    with pytest.raises(
        ConfigError, match=r"c.yaml: data.input_path '.*caf\\udce9': expected a name in UTF-8; rename it, or"
    ):
        load_config(tmp_path / "c.yaml", ["data.input_path=/data/caf\udce9"])


def test_a_single_image_is_a_test_set_and_no_training_set(images, tmp_path):
    image = images / "testing" / "cold" / "000.png"
    config = load_config(write_config(tmp_path / "c.yaml", "classify", images, data__test_input_path=str(image)))
    assert check_command(config, "classify", 1).data.test_input_path == image
    config = load_config(write_config(tmp_path / "c.yaml", "classify", images, data__input_path=str(image)))
    with pytest.raises(
        ConfigError, match=r"data.input_path: is a file: .*000.png; expected a folder of images; `tfinpaint"
    ):
        check_command(config, "classify", 1)
