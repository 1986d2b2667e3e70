"""Configuration files: what they are read as, overrides, paths, and files that are refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from tfinpaint.config.loader import dump_config, load_config
from tfinpaint.config.schema import Config, ConfigError

RECIPES = sorted((ROOT / "configs").glob("*/*.yaml"))

# The keys of the tutorial's pretraining file, in the form of rmldnn.
RMLDNN_JSON = {
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


def test_rmldnns_json_is_read_with_tabs_and_outer_key(tmp_path):
    path = tmp_path / "rmldnn.json"
    path.write_text(json.dumps(RMLDNN_JSON, indent="\t"))
    config = load_config(path)
    assert config.num_epochs == 100
    assert config.data.input_type == config.data.target_type == "images"
    assert config.data.input_path == config.data.target_path == tmp_path / "natural_images" / "training"
    assert config.checkpoints.save == tmp_path / "model_checkpoints"
    assert config.outfile == tmp_path / "out_inpaint.txt"
    assert config.input_shape == (128, 128, 3)
    assert (config.mask.random_patches.number, config.mask.random_patches.size) == (16, 16)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_is_valid_and_states_its_command_and_result(path):
    config = load_config(path)
    assert config.workdir.is_relative_to(ROOT / "runs")
    head = path.read_text().split("\nworkdir")[0]
    for word in ("#   tfinpaint ", f"--config {path.relative_to(ROOT)}", "Hardware", "Time", "Result"):
        assert word in head


def test_the_resolved_configuration_reads_back_equal(tmp_path):
    config = load(tmp_path, "data: {transforms: [{resize: [64, 32]}], input_path: here}\nworkdir: run\n")
    again = tmp_path / "elsewhere" / "resolved.yaml"
    again.parent.mkdir()
    again.write_text(dump_config(config))
    assert load_config(again) == config


def test_shorthands_set_two_keys_each(tmp_path):
    data = load(tmp_path, "data: {type: images, grayscale: true}\n").data
    assert data.input_type == data.target_type == "images"
    assert data.input_grayscale
    assert data.target_grayscale


def test_overrides_are_typed_and_may_reach_into_lists(tmp_path):
    text = "data: {transforms: [{resize: [64, 64]}]}\n"
    overrides = ("optimizer.learning_rate=1e-4", "data.transforms.0.resize=[32, 96]", "steps_per_epoch=null")
    config = load(tmp_path, text, *overrides)
    assert (config.optimizer.learning_rate, config.input_shape, config.steps_per_epoch) == (1e-4, (96, 32, 3), None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_epochs=many", r"--set num_epochs=many: num_epochs: .*integer"),
        ("num_epochs", r"expected KEY=VALUE"),
        ("optimiser.type=SGD", r"--set optimiser.type=SGD: unknown key optimiser; did you mean optimizer"),
        ("data.transforms.3.resize=[1, 1]", r"there is no"),
        ("num_epochs.x=1", r"there is no num_epochs.x"),
        (
            "optimizer.lr_scheduler.warmup_epochs=1",
            r"^--set .*: optimizer.lr_scheduler.type is missing, and has no default",
        ),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, "data: {transforms: [{resize: [64, 64]}]}\nnum_epochs: 1\n", override)


def test_an_error_is_blamed_on_the_file_or_the_override_that_made_it(tmp_path):
    with pytest.raises(ConfigError, match=r"^.*config.yaml:1: optimizer: SGD has no beta1"):
        load(tmp_path, "optimizer: {type: SGD, beta1: 0.5}\n", "optimizer.learning_rate=0.1")


def test_overrides_fill_empty_sections_and_take_paths_literally(tmp_path):
    config = load(tmp_path, "data:\n", "data.input_path=/x/my data #1/a: b", "data.test_input_path=null")
    assert config.data.input_path == Path("/x/my data #1/a: b")
    assert config.data.test_input_path is None


def test_yaml_is_read_with_booleans_merge_keys_and_numbers_in_exponent_form(tmp_path):
    assert load(tmp_path, "jit_compile: off\n").jit_compile is False
    text = "optimizer: {<<: {type: SGD, learning_rate: 0.1}, learning_rate: 0.2}\n"
    assert load(tmp_path, text).optimizer.learning_rate == 0.2
    assert yaml.safe_load("1e-3") == "1e-3"  # why the project has a loader of its own
    assert load(tmp_path, "optimizer: {learning_rate: 1e-3}\n").optimizer.learning_rate == 0.001


def test_aliases_and_a_byte_order_mark_are_read(tmp_path):
    text = "data: {transforms: [{resize: &size [32, 32]}], input_transforms: [{center_crop: *size}]}\n"
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8-sig")
    config = load_config(tmp_path / "config.yaml")
    assert config.data.input_transforms[0].center_crop == config.data.transforms[0].resize == [32, 32]


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


def test_paths_that_are_not_text_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"config.yaml: data.input_path '.*caf\\udce9': expected a name in UTF-8; rename it, or"
    ):
        load(tmp_path, "workdir: run\ndata: {type: images}\n", "data.input_path=/data/caf\udce9")  # fmt: skip


def test_a_wrong_configuration_is_refused_before_tensorflow_is_imported(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("num_epochz: 1\n")
    code = (
        "import sys; from tfinpaint.pretrain import main; "
        f"code = main(['--config', {str(path)!r}]); "
        "sys.exit(77 if 'tensorflow' in sys.modules or 'keras' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {path}:1: unknown key num_epochz; did you mean num_epochs?\n"


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
REFUSED = {
    "not a mapping": ("- a\n- b\n", "expected a mapping"),
    "not YAML": ("num_epochs: [\n", r"config.yaml:\d: not valid YAML"),
    "key twice": ("seed: 1\nseed: 2\n", "config.yaml:2: seed is given twice"),
    "alias of its own section": ("data: &d {transforms: *d}\n", "config.yaml"),
    "impossible date": ("outfile: 2024-13-45\n", "config.yaml:1: not valid YAML: '2024-13-45' is no timestamp; if it is a text"),
    "no bool": ("seed: 1\nrecompute: !!bool perhaps\n", "config.yaml:2: not valid YAML: 'perhaps' is no bool; if it is a text"),
    "no int": ('seed: !!int ""\n', "config.yaml:1: not valid YAML: '' is no int"),
    "no timestamp": ("outfile: !!timestamp x\n", "config.yaml:1: not valid YAML: 'x' is no timestamp"),
    "empty path": ("data: {input_path: ''}\n", "data.input_path: '' is not a usable path"),
    "path of an unknown user": ("data: {input_path: ~nosuchuser/x}\n", "data.input_path: '~nosuchuser/x' is not a usable path"),
    "aliases of aliases": (BOMB, "config.yaml:6: not valid YAML: more than 50000 values, including those that aliases"),
    "merged aliases": (BOMB.replace("[", "{<<: [").replace("]", "]}").replace("x, x", "{k: 1}"), "more than 50000 values"),
    "alias of itself": ("layers: &a [*a]", r"config.yaml:1: not valid YAML: the alias \*a has no anchor"),
    "levels": ("a: " + "[" * 10**5, "config.yaml:1: not valid YAML: more than 64 levels"),
    "digits": ("seed: " + "1:" * 10**5 + "1", r"config.yaml:1: .* a value of 200001 characters; write it in quotes"),
    "digits by tag": ('seed: !!int "' + "1:" * 10**5 + '1"', "a value of 200001 characters"),
    "size": ("#" * (4 * 2**20 + 1), "config.yaml: is larger than 4 MiB"),
    "code": ("a: !!python/object/apply:os.system [touch canary]", "could not determine a constructor for the tag"),
    "null character": ("seed: 1\0", "config.yaml: not valid YAML: unacceptable character #x0000"),
    "list for key": ("? [1]\n: 2", "config.yaml:1: a key must be a printable text"),
    "line break in key": ('"a\\nb": 1', "config.yaml:1: a key must be a printable text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, case):
    text, expected = REFUSED[case]
    with pytest.raises(ConfigError, match=expected) as raised:
        load(tmp_path, text)
    assert "\n" not in str(raised.value)
    assert not Path("canary").exists()
