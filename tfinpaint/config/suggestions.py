"""Suggest the key that was probably meant by one that does not exist. Imports no TensorFlow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import Transform

_CERTAIN, _LIKELY = 0.84, 0.72  # similarity of two names
_MAX_SUGGESTIONS = 3

# Key -> its names in other programs, as `_plain` writes them. A name with dots counts in that place only.
_NAMES = {
    "num_epochs": "epoch epochs n_epochs nb_epochs max_epochs total_epochs num_train_epochs",
    "steps_per_epoch": "steps max_steps num_steps total_steps iterations max_iter limit_train_batches",
    "optimizer.learning_rate": "lr lr0 lrate base_lr init_lr initial_lr max_lr rate learn_rate optimizer.rate",
    "optimizer.type": "opt optim optimizer_type optimizer_name optimizer.name",
    "optimizer.weight_decay": "wd decay l2 l2_regularization",
    "optimizer.clip_norm": "clip clipnorm grad_clip gradient_clip gradient_clip_val max_grad_norm clip_grad_norm",
    "optimizer.layer_decay": "layer_lr_decay layerwise_lr_decay llrd layerwise_decay",
    "optimizer.unfreeze_every": "gradual_unfreezing unfreeze_epochs",
    "optimizer.ema_decay": "ema use_ema model_ema ema_momentum model_ema_decay ema_rate",
    "optimizer.lr_scheduler": "scheduler schedule lr_schedule lr_policy sched scheduler_type",
    "loss.function": "criterion loss_function loss_fn loss_type loss_name loss.type loss.name",
    "loss.weight": "class_weights class_weight",
    "loss.label_smoothing": "smoothing label_smooth",
    "data.batch_size": "batch bs minibatch train_batch_size per_device_train_batch_size samples_per_gpu",
    "data.test_batch_size": "val_batch_size valid_batch_size eval_batch_size per_device_eval_batch_size",
    "data.input_path": "train_path train_dir train_data data_path data_dir data_root dataset path images image_dir",
    "data.test_input_path": "val val_path val_dir val_data valid_dir validation_path test_path test_dir eval_dir",
    "data.target_path": "mask_path mask_dir masks label_path label_dir target_dir targets annotations",
    "data.transforms": "augment aug augmentation augmentations transform train_transforms",
    "data.label_fraction": "train_fraction fraction subset data_fraction",
    "data.mixup": "mixup_alpha mix_up",
    "data.validation_fraction": "validation_split val_split val_fraction valid_fraction",
    "early_stopping.patience": "patience early_stopping_patience",
    "model.head": "pooling global_pool pool_type classifier_head",
    "model.head_init": "lp_ft lpft linear_probe_init init_head",
    "probe": "online_probe linear_eval knn_eval probing",
    "model.trainable": "freeze frozen freeze_encoder freeze_backbone freeze_layers unfreeze freeze_bn linear_probe",
    "model.encoder": "backbone arch architecture model_name encoder_name net",
    "layers": "network network_file model_file net_file",
    "workdir": "output_dir out_dir output_path out log_dir logdir work_dir run_dir project run_name experiment",
    "checkpoints.save": "save_dir checkpoint_dir ckpt_dir checkpoints.dir checkpoints.path checkpoints.folder",
    "checkpoints.load": "checkpoint ckpt weights pretrained resume resume_from load_from load_weights checkpoint_path",
    "checkpoints.keep": "max_to_keep keep_last save_top_k save_total_limit",
    "precision": "amp fp16 bf16 half mixed_precision dtype use_amp",
    "accumulate_steps": "gradient_accumulation gradient_accumulation_steps grad_accum accumulate_grad_batches",
    "seed": "random_seed manual_seed random_state",
    "recompute": "gradient_checkpointing activation_checkpointing checkpoint_activations recompute_activations remat",
    "jit_compile": "compile xla torch_compile",
    "distributed.sync_batchnorm": "sync_bn syncbn sync_batch_norm",
}
# Key of a step of data.transforms -> its names in other programs.
_NAMES_IN_STEPS = {
    "number": "count n num num_patches n_patches amount",
    "size": "side width patch_size cell_size",
    "side": "size width length",
    "area": "scale ratio share",
    "ratio": "mask_ratio share area",
    "fill": "value color colour fill_value",
    "probability": "p prob",
    "sigma": "radius kernel_size",
}
# Section -> the key in it that an option of the section's name means.
_MAIN_KEYS = {
    "data": "data.input_path",
    "model": "model.encoder",
    "optimizer": "optimizer.type",
    "loss": "loss.function",
    "checkpoints": "checkpoints.load",
}
# Names of settings that are made in another way -> which.
_ADVICE = {
    "workers num_workers n_workers threads num_threads prefetch pin_memory":
    "images are read by as many threads as a rank has processor cores",
    "device devices gpu gpus num_gpus cuda accelerator world_size nproc num_processes ranks":
    "GPUs are used if TensorFlow finds any, and the number of ranks is an option: --ranks 4",
    "num_classes nb_classes n_classes classes class_names":
    "the classes are the names of the folders in data.input_path",
    "image_size img_size imgsz input_size input_shape crop_size resolution data.size":
    "the size is set by a step of data.transforms, such as `- resize: [128, 128]`",
    "mask mask_ratio mask_size masking patch_size patches":
    "a mask is the last step of data.transforms, such as `- random_patches: {number: 16, size: 16}`",
    "normalization mean std":
    "values are normalised by a step of data.input_transforms, such as `- normalize: {mean: 0.5, std: 0.5}`",
    "shuffle drop_last": "training images are shuffled in every epoch, and a last partial batch is dropped",
}  # fmt: skip
_OTHER_NAMES = {name: key for key, names in _NAMES.items() for name in names.split()}
_SENTENCES = {name: sentence for names, sentence in _ADVICE.items() for name in names.split()}


def suggest_key(location: Sequence[str | int], value: Any = None) -> str:
    """Return what to say after "unknown key X": which key was probably meant, or which keys there are.

    Args:
        location: of the key, such as ("optimizer", "lr").
        value: its value; if it is a section that does not exist, its keys show where they belong.
    """
    *parents, last = location
    section, key = keys_at(parents), str(last)
    name, colon, rest = key.partition(":")
    if colon and name in section:
        return f"; a space is missing after the colon: write `{name}: {rest or '...'}`"
    known = _similar(key, section, _CERTAIN) or _in_step(parents, _plain(key))
    if not known and (sentence := _find_name(_SENTENCES, parents, key)):
        return f": {sentence}"
    found = [candidate for candidate in _candidates(parents, key, value) if candidate != dotted(location)]
    if found:
        return f"; did you mean {' or '.join(found[:_MAX_SUGGESTIONS])}?"
    if step := _similar(key, list(Transform.model_fields), _CERTAIN):
        return f"; transforms belong into the list data.transforms: `- {step[0]}: ...`"
    if not section:
        return f"; {dotted(parents)} is a value and has no keys"
    return f"; the keys of {dotted(parents) or 'a configuration'} are {', '.join(section)}"


def suggest_option(name: str) -> str | None:
    """Return the key that was probably meant by a command-line option such as `--batch-size`, or None."""
    key = next(iter(_candidates([], name.lstrip("-"), None)), None)
    return _MAIN_KEYS.get(key, key) if key else None


def keys_at(location: Sequence[str | int]) -> list[str]:
    """Return the keys that the schema allows at a place; [] if it allows no mapping there."""
    model: type[BaseModel] = Config
    for part in location:
        if isinstance(part, str):
            found = _sections(model.model_fields[part].annotation) if part in model.model_fields else []
            if not found:
                return []
            model = found[0]
    return list(model.model_fields)


def dotted(location: Sequence[str | int]) -> str:
    """Return a location as a user writes it, such as "data.transforms.0.resize"."""
    return ".".join(str(part) for part in location)


def _candidates(parents: Sequence[str | int], key: str, value: Any) -> list[str]:
    """Return the keys that may have been meant by the first rule that finds any; all of them are equally likely."""
    plain, section = _plain(key), keys_at(parents)
    below = f"{dotted(parents)}."
    named = _find_name(_OTHER_NAMES, parents, key)
    last_name = named.rpartition(".")[2] if named else plain
    inside = [path for path in _PATHS if path.startswith(below)]
    for found in (
        [dotted([*parents, name]) for name in _similar(plain, section, _CERTAIN)][:1],
        [dotted([*parents, name]) for name in _in_step(parents, plain)],
        [path for path in inside if path.endswith(f".{last_name}")],
        [named] if named else [],
        _elsewhere(plain, 1.0),
        [dotted([*parents, name]) for name in _similar(plain, section, _LIKELY)][:1],
        _elsewhere(plain, _CERTAIN),
        _place_of_section(parents, value),
    ):
        if found:
            return found
    return []


def _find_name(names: Mapping[str, str], parents: Sequence[str | int], key: str) -> str | None:
    return names.get(_plain(dotted([*parents, key]))) or names.get(_plain(key))


def _in_step(parents: Sequence[str | int], plain: str) -> list[str]:
    """Return the key of a step of transforms that has this name in other programs, in a list; [] for no such key."""
    in_step = any(str(part).endswith("transforms") for part in parents[:-1])
    found = [name for name in keys_at(parents) if plain in _NAMES_IN_STEPS.get(name, "").split()] if in_step else []
    return found[:1]


def _place_of_section(parents: Sequence[str | int], value: Any) -> list[str]:
    """Return where the first key of a section that does not exist belongs."""
    inner = next(iter(value), None) if isinstance(value, dict) else None
    if not isinstance(inner, str):
        return []
    if inner in keys_at(parents):
        return [dotted([*parents, inner])]
    return _candidates([], inner, value[inner]) if inner not in Config.model_fields else [inner]


def _elsewhere(plain: str, cutoff: float) -> list[str]:
    """Return the keys of any section with a name like this one; of several, those of the outermost sections."""
    best = _similar(plain, sorted({path.rpartition(".")[2] for path in _PATHS}), cutoff)[:1]
    found = [path for path in _PATHS if path.rpartition(".")[2] in best]
    depth = min((path.count(".") for path in found), default=0)
    return [path for path in found if path.count(".") == depth]


def _similar(name: str, names: Sequence[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(_plain(name), names, cutoff=cutoff)


def _plain(name: str) -> str:
    """Return a name in the spelling of keys: batchSize, batch-size and BATCH_SIZE become batch_size."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(" ", "_").lower()


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of the schema except those of transforms."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _sections(field.annotation):
            if inner is not Transform:
                yield from _paths(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a type annotation contains."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


_PATHS = list(_paths(Config))
