"""What is said of keys that do not exist, of files that are not there, and of texts that are no YAML."""

import pytest
from test_loader import load

from tfinpaint.config import suggestions
from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import ConfigError


def message(tmp_path, text, *overrides):
    """What a text is refused with, without the name of its file."""
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, text, *overrides)
    assert len(str(refusal.value).splitlines()) == 1
    return str(refusal.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        # names of other programs
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("learning-rate", "optimizer.learning_rate"),
        ("learningRate", "optimizer.learning_rate"),
        ("epochs", "num_epochs"),
        ("data.epochs", "num_epochs"),
        ("freeze", "model.trainable"),
        ("model.freeze", "model.trainable"),
        ("model.backbone", "model.encoder"),
        ("val_path", "data.test_input_path"),
        ("data.val", "data.test_input_path"),
        ("optimizer.weight-decay", "optimizer.weight_decay"),
        ("wd", "optimizer.weight_decay"),
        ("checkpoints.path", "checkpoints.save"),
        ("resume", "checkpoints.load"),
        ("amp", "precision"),
        ("grad_clip", "optimizer.clip_norm"),
        # keys of other sections
        ("batch_size", "data.batch_size"),
        ("optimizer.batch_size", "data.batch_size"),
        ("data.seed", "seed"),
        ("lr_scheduler", "optimizer.lr_scheduler"),
        ("gamma", "optimizer.lr_scheduler.gamma"),
        ("loss.adversarial.learning_rate", "loss.adversarial.optimizer.learning_rate"),
        ("loss.adversarial.lr", "loss.adversarial.optimizer.learning_rate"),
        ("type", "data.type or optimizer.type"),
        # slips of the pen
        ("optimiser", "optimizer"),
        ("data.batchsize", "data.batch_size"),
        ("loss.weights", "loss.weight"),
        ("data.transform", "data.transforms"),
        ("data.transforms.1.random_patch", "data.transforms.1.random_patches"),
        ("optimizer.lr_scheduler.milestone", "optimizer.lr_scheduler.milestones"),
    ],
)
def test_the_key_that_was_meant_is_found(key, meant):
    location = [int(part) if part.isdecimal() else part for part in key.split(".")]
    assert suggestions.suggest_key(location) == f"; did you mean {meant}?"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("foo", "; the keys of a configuration are num_epochs, "),
        ("model.foo", "; the keys of model are encoder, encoder_output, bottleneck, trainable, batchnorm_batches"),
        ("optimizer.type.name", "; optimizer.type holds a value, and no keys"),
        ("resize", "; a step stands in the list data.transforms: `- resize: ...`"),
        ("data.random_patches", "; a step stands in the list data.transforms: `- random_patches: ...`"),
        ("image_size", ": the size is set by a step of data.transforms, such as `- resize: [128, 128]`"),
        ("data.num_workers", ": images are read by as many threads as a rank has processor cores"),
        ("device", ": GPUs are used where TensorFlow finds any"),
        ("num_classes", ": the classes are the names of the folders in data.input_path"),
        ("data.batch_size:8", "; a blank is missing after the colon: write `batch_size: 8`"),
    ],
)
def test_where_no_key_is_near_something_true_is_said(key, words):
    assert suggestions.suggest_key(key.split(".")).startswith(words)


def test_other_names_lead_to_keys_that_exist_and_are_not_keys_themselves():
    assert set(suggestions._OTHER_NAMES.values()) <= set(suggestions._PATHS)
    assert not set(suggestions._OTHER_NAMES) & set(suggestions._PATHS)
    for path in suggestions._PATHS:  # moved to a place where it is not, a key is never suggested for itself
        *_, name = path.split(".")
        for parents in ([], ["data"], ["optimizer"], ["model"]):
            if name not in suggestions.keys_at(parents):
                said = suggestions.suggest_key([*parents, name])
                assert suggestions.dotted([*parents, name]) not in said.partition("did you mean ")[2].rstrip("?").split(
                    " or "
                )


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        ("", "optimizer.lr_scheduler={type:Cosine}",
         "--set optimizer.lr_scheduler={type:Cosine}: unknown key optimizer.lr_scheduler.type:Cosine; a blank is missing after the "
         "colon: write `type: Cosine`"),
        ("", "data.transforms=[{resize: [32, 32]}, {random_patch: {number: 1, size: 4}}]",
         "unknown key data.transforms.1.random_patch; did you mean data.transforms.1.random_patches?"),
        ("", "training.num_epochs=3", "unknown key training; did you mean num_epochs?"),
        ("", "optimizer.adam.learning_rate=1e-3", "unknown key optimizer.adam; did you mean optimizer.learning_rate?"),
        ("data: {transforms: [{resize: 32}]}", "seed=1",
         "data.transforms.0.resize: input should be a valid list, such as [32, 32] (given: 32)"),
        ("data: {transforms: [{center_crop: [32]}]}", "seed=1", "list should have at least 2 items after validation, not 1, such as"),
        ("data: {transforms: [{random_block: {side: 0.5}}]}", "seed=1", "a valid list, such as [0.1, 0.3] (given: 0.5)"),
        ("data: {transforms: {resize: [32, 32]}}", "seed=1", "data.transforms: input should be a valid list, such as - resize: [128, 128]"),
        ("num_epochs: '10'", "seed=1", "num_epochs: input should be a valid integer (given: '10'); write it without quotes"),
        ("num_epochs: ten", "seed=1", "num_epochs: input should be a valid integer (given: 'ten')"),
    ],
)  # fmt: skip
def test_values_in_files_and_overrides_are_told_with_their_remedy(tmp_path, text, override, expected):
    said = message(tmp_path, text, override)
    assert expected in said
    assert said.endswith(expected) or not expected.endswith((")", "?", "`", "quotes"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:\n  type: images\n    batch_size: 8\n", "config.yaml:3: not valid YAML: it is indented differently from the lines around it"),
        ("data:\n    type: images\n  batch_size: 8\n", "config.yaml:3: not valid YAML: it is indented differently from the lines around it"),
        ("data:\n  transforms:\n    - resize: [8, 8]\n   - random_zoom: 0.1\n", "config.yaml:4: not valid YAML: it is indented differently"),
        ("data:\n\ttype: images\n", "config.yaml:2: not valid YAML: it is indented with a tab; use blanks"),
        ("data:\n  type: images\n\tbatch_size: 8\n", "config.yaml:3: not valid YAML: it is indented with a tab; use blanks"),
        ("num_epochs:3\nseed: 1\n", "not valid YAML: a blank is missing after a colon: write `num_epochs: 3`"),
        ("seed: 1\nnum_epochs:3\n", "not valid YAML: a blank is missing after a colon: write `num_epochs: 3`"),
        ("data:\n  batch_size:8\n  preload: true\n", "not valid YAML: a blank is missing after a colon: write `batch_size: 8`"),
        ("num_epochs:3\n", "config.yaml: expected a mapping of keys to values, found str; a blank is missing after a colon"),
    ],
)  # fmt: skip
def test_common_slips_in_yaml_are_told_in_words(tmp_path, text, expected):
    assert expected in message(tmp_path, text)


def test_a_file_that_is_not_there_names_the_one_that_may_be_meant(tmp_path, monkeypatch):
    def refused(path):
        with pytest.raises(ConfigError) as refusal:
            load_config(path)
        return str(refusal.value)

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"
    folder.mkdir()
    missing = folder / "config_trian.json"
    assert refused(missing) == f"{missing}: no such configuration file; there is no YAML or JSON file in {folder}"
    for name in ("config_train.json", "config_test.json", "notes.txt"):
        (folder / name).write_text("{}")
    assert refused(missing).endswith(f"no such configuration file; did you mean {folder}/config_train.json?")
    assert refused((folder / "mine.yaml").relative_to(tmp_path)).endswith(
        "there are config_test.json, config_train.json"
    )
    assert refused(folder.relative_to(tmp_path)) == (
        "configs: is a folder; name a file in it; there are config_test.json, config_train.json"
    )
    (folder / "config_test.json").unlink()
    assert refused(folder.relative_to(tmp_path)).endswith("did you mean ./configs/config_train.json?")
    assert refused(tmp_path / "no" / "c.yaml").endswith(f"no such configuration file; there is no folder {tmp_path}/no")
    assert "no such configuration file" in refused(folder / "config_train.json" / "c.yaml")
