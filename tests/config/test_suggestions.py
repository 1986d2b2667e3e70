"""Which key was probably meant by one that does not exist."""

import pytest

from tfinpaint.config import suggestions


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        # names in other programs
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
        ("gradient_checkpointing", "recompute"),
        ("grad_clip", "optimizer.clip_norm"),
        ("optimizer.ema", "optimizer.ema_decay"),
        ("lp_ft", "model.head_init"),
        ("mixup_alpha", "data.mixup"),
        ("gradual_unfreezing", "optimizer.unfreeze_every"),
        ("online_probe", "probe"),
        ("layer_lr_decay", "optimizer.layer_decay"),
        ("patience", "early_stopping.patience"),
        ("label_smoothing", "loss.label_smoothing"),
        ("val_split", "data.validation_fraction"),
        # keys of other sections
        ("batch_size", "data.batch_size"),
        ("optimizer.batch_size", "data.batch_size"),
        ("data.seed", "seed"),
        ("lr_scheduler", "optimizer.lr_scheduler"),
        ("gamma", "optimizer.lr_scheduler.gamma"),
        ("loss.adversarial.learning_rate", "loss.adversarial.optimizer.learning_rate"),
        ("loss.adversarial.lr", "loss.adversarial.optimizer.learning_rate"),
        ("type", "data.type or optimizer.type"),
        # typing errors
        ("optimiser", "optimizer"),
        ("data.batchsize", "data.batch_size"),
        ("loss.weights", "loss.weight"),
        ("data.transform", "data.transforms"),
        ("data.transforms.1.random_patch", "data.transforms.1.random_patches"),
        ("data.transforms.1.random_patches.count", "data.transforms.1.random_patches.number"),
        ("data.transforms.1.random_patches.patch_size", "data.transforms.1.random_patches.size"),
        ("data.transforms.0.center.size", "data.transforms.0.center.side"),
        ("data.input_transforms.0.gaussian_blur.p", "data.input_transforms.0.gaussian_blur.probability"),
        ("optimizer.lr_scheduler.milestone", "optimizer.lr_scheduler.milestones"),
    ],
)
def test_the_key_that_was_meant_is_found(key, meant):
    location = [int(part) if part.isdecimal() else part for part in key.split(".")]
    assert suggestions.suggest_key(location) == f"; did you mean {meant}?"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("foo", "; the keys of a configuration are num_epochs, "),
        (
            "model.foo",
            "; the keys of model are encoder, encoder_output, stem, bottleneck, decoder, head, head_init, trainable, ",
        ),
        ("optimizer.type.name", "; optimizer.type is a value and has no keys"),
        ("resize", "; transforms belong into the list data.transforms: `- resize: ...`"),
        ("data.random_patches", "; transforms belong into the list data.transforms: `- random_patches: ...`"),
        ("image_size", ": the size is set by a step of data.transforms, such as `- resize: [128, 128]`"),
        ("data.num_workers", ": images are read by as many threads as a rank has processor cores"),
        ("device", ": GPUs are used if TensorFlow finds any"),
        ("num_classes", ": the classes are the names of the folders in data.input_path"),
        ("data.batch_size:8", "; a space is missing after the colon: write `batch_size: 8`"),
    ],
)
def test_advice_or_the_list_of_keys_where_no_key_is_similar(key, message):
    assert suggestions.suggest_key(key.split(".")).startswith(message)


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
