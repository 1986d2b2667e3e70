"""What a key that does not exist was probably meant to be. Imports no TensorFlow."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import Transform

_SURELY, _PROBABLY = 0.84, 0.72  # how much alike two names of one section are
_ELSEWHERE = 0.84  # the same, of names of different sections
_MOST_NAMED = 3
_STEP = "data.transforms"

# Names that other programs have for a key, as `_plain` writes them. A name with dots counts in that place alone.
_NAMES = {
    "num_epochs": "epoch epochs n_epochs nb_epochs max_epochs total_epochs num_train_epochs",
    "steps_per_epoch": "steps max_steps num_steps total_steps iterations max_iter limit_train_batches",
    "optimizer.learning_rate": "lr lr0 lrate base_lr init_lr initial_lr max_lr rate learn_rate optimizer.rate",
    "optimizer.type": "opt optim optimizer_type optimizer_name optimizer.name",
    "optimizer.weight_decay": "wd decay l2 l2_regularization",
    "optimizer.eps": "epsilon",
    "optimizer.beta1": "betas beta_1 beta",
    "optimizer.beta2": "beta_2",
    "optimizer.clip_norm":
    "clip clipnorm grad_clip gradient_clip gradient_clip_val max_grad_norm clip_grad clip_grad_norm",
    "optimizer.lr_scheduler": "scheduler schedule lr_schedule lr_policy lr_config sched scheduler_type",
    "optimizer.lr_scheduler.warmup_epochs": "warmup warmup_steps warmup_ratio warmup_iters",
    "loss.function": "criterion loss_function loss_fn loss_type loss_name loss.type loss.name",
    "loss.weight": "class_weights class_weight",
    "data.batch_size":
    "batch bs batchsize minibatch train_batch_size train_batchsize per_device_train_batch_size "
    "samples_per_gpu batch_size_per_gpu",
    "data.test_batch_size":
    "val_batch_size valid_batch_size eval_batch_size validation_batch_size test_batch "
    "per_device_eval_batch_size",
    "data.input_path":
    "train_path train_dir train_data train_folder data_path data_dir data_root dataset dataset_path "
    "datadir root path dir input_dir input_folder images image_dir image_path images_path image_folder "
    "data.train data.folder data.input data.training",
    "data.test_input_path":
    "val_path val_dir val_data val valid_path valid_dir valid validation_path validation_dir "
    "validation_data test_path test_dir test_data test_folder eval_path eval_dir eval_data data.test "
    "data.testing",
    "data.target_path": "mask_path mask_dir masks label_path label_dir target_dir targets annotations",
    "data.test_target_path":
    "val_mask_path val_mask_dir test_mask_path test_mask_dir test_label_path val_target_path",
    "data.test_output_path": "prediction_path prediction_dir predictions pred_dir output_predictions",
    "data.transforms": "augment aug augmentation augmentations transform train_transforms",
    "data.preload": "cache cache_images in_memory",
    "data.training_tag": "train_tag",
    "data.testing_tag": "test_tag",
    "data.label_fraction": "train_fraction fraction subset data_fraction",
    "model.trainable":
    "freeze frozen freeze_encoder freeze_backbone frozen_stages freeze_layers frozen_layers unfreeze "
    "freeze_bn linear_probe",
    "model.encoder": "backbone arch architecture model_name encoder_name net",
    "layers": "network network_file model_file net_file",
    "workdir":
    "output_dir out_dir outdir output_path out log_dir logdir work_dir run_dir save_path output_folder "
    "project run_name experiment results_dir",
    "checkpoints.save": "save_dir checkpoint_dir ckpt_dir checkpoints.dir checkpoints.path checkpoints.folder",
    "checkpoints.load":
    "checkpoint ckpt weights pretrained pretrain resume resume_from load_from init_from load_weights "
    "pretrained_weights pretrained_path checkpoint_path ckpt_path weights_path from_pretrained",
    "checkpoints.interval":
    "save_interval save_every save_freq save_period checkpoint_interval checkpoints.every "
    "checkpoints.frequency",
    "checkpoints.keep": "max_to_keep keep_last save_top_k save_total_limit max_keep",
    "precision": "amp fp16 bf16 half mixed_precision dtype use_amp",
    "accumulate_steps":
    "gradient_accumulation gradient_accumulation_steps grad_accum accumulate accumulate_grad_batches "
    "accum_iter accumulation_steps",
    "seed": "random_seed manual_seed random_state",
    "deterministic": "cudnn_deterministic reproducible",
    "jit_compile": "compile xla torch_compile",
    "distributed.sync_batchnorm": "sync_bn syncbn sync_batch_norm",
    "figures_interval": "log_interval print_freq plot_interval vis_interval",
}  # fmt: skip
_ADVICE = {
    "workers num_workers n_workers dataloader_num_workers threads num_threads prefetch pin_memory":
    "images are read by as many threads as a rank has processor cores",
    "device devices gpu gpus num_gpus cuda accelerator gpu_ids world_size nproc num_processes ranks":
    "GPUs are used where TensorFlow finds any, and the launcher sets the number of ranks: horovodrun -np 4",
    "num_classes nb_classes n_classes classes class_names":
    "the classes are the names of the folders in data.input_path",
    "image_size img_size imgsz img_dim input_size input_shape crop_size resolution data.size":
    "the size is set by a step of data.transforms, such as `- resize: [128, 128]`",
    "mask mask_ratio mask_size masking patch_size patches":
    "a mask is the last step of data.transforms, such as `- random_patches: {number: 16, size: 16}`",
    "normalization mean std":
    "values are normalised by a step of data.input_transforms, such as `- normalize: {mean: 0.5, std: "
    "0.5}`",
    "shuffle drop_last": "training images are shuffled in every epoch, and a last partial batch is left out",
}  # fmt: skip
_OTHER_NAMES = {name: key for key, names in _NAMES.items() for name in names.split()}
_SENTENCES = {name: sentence for names, sentence in _ADVICE.items() for name in names.split()}


def explain(location: Sequence[str | int], value: Any = None) -> str:
    """Return what to say after "unknown key X": what was probably meant, or which keys there are.

    Args:
        location: of the key, such as ("optimizer", "lr").
        value: what stands there; of a section that does not exist, its keys tell where they belong.
    """
    *parents, last = location
    section, key = keys_at(parents), str(last)
    name, colon, rest = key.partition(":")
    if colon and name in section:
        return f"; a blank is missing after the colon: write `{name}: {rest or '...'}`"
    if not _close(key, section, _SURELY) and (sentence := _named(_SENTENCES, parents, key)):
        return f": {sentence}"
    own = dotted(location)
    if found := [candidate for candidate in _candidates(parents, key, value) if candidate != own]:
        return f"; did you mean {' or '.join(found[:_MOST_NAMED])}?"
    if step := _close(key, list(Transform.model_fields), _SURELY):
        return f"; a step stands in the list {_STEP}: `- {step[0]}: ...`"
    if not section:
        return f"; {dotted(parents)} holds a value, and no keys"
    return f"; the keys of {dotted(parents) or 'a configuration'} are {', '.join(section)}"


def suggestion(name: str) -> str | None:
    """Return the key that was probably meant by an option such as `--batch-size` of a command line, or None."""
    return next(iter(_candidates([], name.lstrip("-"), None)), None)


def keys_at(location: Sequence[str | int]) -> list[str]:
    """Return the keys that the schema allows at a place; [] where it has no mapping."""
    model: type[BaseModel] = Config
    for part in location:
        if isinstance(part, int):
            continue
        found = _sections(model.model_fields[part].annotation) if part in model.model_fields else []
        if not found:
            return []
        model = found[0]
    return list(model.model_fields)


def dotted(location: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in location)


def _candidates(parents: Sequence[str | int], key: str, value: Any) -> list[str]:
    """The keys that may have been meant, the likeliest first; all of the list are equally likely."""
    plain, section = _plain(key), keys_at(parents)
    place = [dotted([*parents, name]) for name in _close(plain, section, _SURELY)]
    named = _named(_OTHER_NAMES, parents, key)
    below = f"{dotted(parents)}."
    for found in (
        place[:1],
        [path for path in _PATHS if named and path.startswith(below) and path.endswith(f".{named.rpartition('.')[2]}")],
        [named] if named else [],
        [path for path in _PATHS if path.startswith(below) and path.endswith(f".{plain}")],
        _elsewhere(plain),
        [dotted([*parents, name]) for name in _close(plain, section, _PROBABLY)][:1],
        _elsewhere(plain, _ELSEWHERE),
        _inside(parents, value),
    ):
        if found:
            return found
    return []


def _named(names: Mapping[str, str], parents: Sequence[str | int], key: str) -> str | None:
    return names.get(_plain(dotted([*parents, key]))) or names.get(_plain(key))


def _inside(parents: Sequence[str | int], value: Any) -> list[str]:
    """Where the first key belongs of a section that does not exist."""
    inner = next(iter(value), None) if isinstance(value, dict) else None
    if not isinstance(inner, str):
        return []
    if inner in keys_at(parents):
        return [dotted([*parents, inner])]
    return _candidates([], inner, value[inner]) if inner not in Config.model_fields else [inner]


def _elsewhere(plain: str, cutoff: float = 1.0) -> list[str]:
    """Keys of any section whose last name is (almost) this one; of several, those of the outermost sections."""
    names = {path.rpartition(".")[2] for path in _PATHS}
    best = _close(plain, sorted(names), cutoff)[:1]
    found = [path for path in _PATHS if path.rpartition(".")[2] in best]
    depth = min((path.count(".") for path in found), default=0)
    return [path for path in found if path.count(".") == depth]


def _close(name: str, names: Sequence[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(_plain(name), names, n=_MOST_NAMED, cutoff=cutoff)


def _plain(name: str) -> str:
    """batchSize, batch-size and BATCH_SIZE -> batch_size."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(" ", "_").lower()


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, but those of the steps of transforms."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _sections(field.annotation):
            if inner is not Transform:
                yield from _paths(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> list[type[BaseModel]]:
    candidates = [annotation, *_arguments(annotation)]
    return [each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)]


def _arguments(annotation: Any) -> list[Any]:
    direct = list(getattr(annotation, "__args__", ()))
    return direct + [inner for argument in direct for inner in _arguments(argument)]


_PATHS = list(_paths(Config))
