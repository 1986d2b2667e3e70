"""Checkpoints are written whole or not at all, restored bit for bit, and deleted when newer ones replace them."""

import dataclasses
import functools
import json
import resource
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfinpaint.checkpoint import store
from tfinpaint.checkpoint.find import list_checkpoints
from tfinpaint.checkpoint.header import Header, RankState, SavedProgress
from tfinpaint.checkpoint.reader import read_header, read_progress, read_ranks, restore_training
from tfinpaint.checkpoint.store import Companion, TrainingState, find_newest_intact, save_checkpoint
from tfinpaint.errors import UserError
from tfinpaint.layout import ENCODER_WEIGHTS, HEADER, OPTIMIZER_STATE, companion_weights
from tfinpaint.models.agreement import build_projector
from tfinpaint.models.decoder import build_inpainter, encoder_part
from tfinpaint.models.discriminator import build_discriminator
from tfinpaint.models.encoder import build_encoder
from tfinpaint.storage import atomic, disk_space
from tfinpaint.storage.atomic import find_damage
from tfinpaint.storage.disk_space import find_shortage

CUT = "conv5_block1_3_bn"


def header(kind="inpainter", epoch=3, **changes):
    fields = {"kind": kind, "epoch": epoch, "step": 10 * epoch, "encoder": "tiny", "encoder_output": "before_add"}
    fields |= {"batch_size": 8, "steps_per_epoch": 10}
    return Header(**(fields | {"height": 32, "width": 32} | changes))


def trained(seed: int):
    """A tiny context encoder after one Adam step, so that the optimizer has a state."""
    keras.utils.set_random_seed(seed)
    return after_one_step(build_inpainter(build_encoder("tiny", "before_add", 32, 32)))


source = functools.cache(lambda: trained(0))  # saved by several tests, changed by none


def small():
    """A model of one layer after one Adam step, for tests that only look at files."""
    return after_one_step(keras.Sequential([keras.layers.Input((200,)), keras.layers.Dense(200)]))


def after_one_step(model):
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.apply([w * 0.1 + 0.01 for w in model.trainable_variables], model.trainable_variables)
    return model, optimizer


def contents(model, optimizer, **beside):
    encoder = None if isinstance(model, keras.Sequential) else encoder_part(model, CUT)
    return TrainingState(model, optimizer, encoder, **beside)


PROGRESS = SavedProgress(
    records=({"phase": "train", "epoch": 1, "loss": float("inf"), "seconds": 1.5, "images_per_second": 2.5},),
    best_epoch=1,
    images=7,
    names=("loss",),
    ranks=2,
    own=3,
)
RANKS = RankState(np.arange(6.0).reshape(2, 3), np.zeros((2, 4, 1)), np.ones((2, 4), np.int64))


def save(folder, model, optimizer, keep=2, best_epoch=None, **changes):
    progress = PROGRESS.model_copy(update={"best_epoch": best_epoch})
    return save_checkpoint(folder, header(**changes), progress, RANKS, contents(model, optimizer), keep)


def companions(seed: int):
    """A small discriminator after one step of its optimizer, and a projector, as keywords of `TrainingState`."""
    keras.utils.set_random_seed(seed)
    model = build_discriminator(32, 32, 3, filters=4)
    optimizer = keras.optimizers.RMSprop(0.01)
    optimizer.apply([w * 0.1 + 0.01 for w in model.trainable_variables], model.trainable_variables)
    projector, adam = build_projector(6, (5, 4)), keras.optimizers.Adam(0.01)
    adam.apply([w * 0.1 + 0.01 for w in projector.trainable_variables], projector.trainable_variables)
    return {"companions": {"discriminator": Companion(model, optimizer), "projector": Companion(projector, adam)}}


def test_restoring_gives_weights_and_optimizer_state_bit_for_bit(tmp_path):
    model, optimizer = source()
    path = save(tmp_path, model, optimizer)
    other, other_optimizer = trained(1)
    restore_training(path, contents(other, other_optimizer))
    for mine, theirs in zip(
        [*model.variables, *optimizer.variables], [*other.variables, *other_optimizer.variables], strict=True
    ):
        assert np.array_equal(mine.numpy(), theirs.numpy())
    assert int(other_optimizer.iterations) == 1
    assert read_header(path) == header()


def test_networks_beside_the_model_and_their_optimizers_come_back_bit_for_bit(tmp_path):
    mine, theirs = contents(*small(), **companions(0)), contents(*small(), **companions(1))
    path = save_checkpoint(tmp_path, header(adversarial="RMSprop"), PROGRESS, RANKS, mine, 1)
    restore_training(path, theirs)
    for ours, others in [(mine, theirs), *((mine.companions[n], theirs.companions[n]) for n in mine.companions)]:
        for name in ("model", "optimizer"):
            for a, b in zip(getattr(ours, name).variables, getattr(others, name).variables, strict=True):
                assert np.array_equal(a.numpy(), b.numpy()), (name, a.path)
    assert [int(each.optimizer.iterations) for each in theirs.companions.values()] == [1, 1]
    restore_training(path, contents(theirs.model, theirs.optimizer))  # the network alone can be restored, too
    (path / companion_weights("discriminator")).unlink()
    with pytest.raises(UserError, match=r"discriminator\.weights\.h5: cannot load the weights"):
        restore_training(path, theirs)


@pytest.mark.stress
def test_the_encoder_file_loads_into_plain_keras(tmp_path):
    model = build_inpainter(build_encoder("resnet50", "before_add", 32, 32))
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    part = encoder_part(model, "conv5_block3_3_bn")
    path = save_checkpoint(
        tmp_path, header(encoder="resnet50"), PROGRESS, RANKS, TrainingState(model, optimizer, part), 1
    )
    plain = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    plain.load_weights(path / ENCODER_WEIGHTS)
    for layer in (layer for layer in part.layers if layer.weights):
        for mine, theirs in zip(layer.get_weights(), plain.get_layer(layer.name).get_weights(), strict=True):
            assert np.array_equal(mine, theirs)


def test_the_newest_are_kept_and_leftovers_removed(tmp_path):
    model, optimizer = small()
    (tmp_path / f".model_checkpoint_9{atomic.WRITING}").mkdir()
    for epoch in (1, 2, 10):
        save(tmp_path, model, optimizer, epoch=epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model_checkpoint_10", "model_checkpoint_2"]
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "model_checkpoint_2",
        "model_checkpoint_10",
    ]


def test_none_stays_that_is_further_than_the_one_saved(tmp_path):
    model, optimizer = small()
    for step in (10, 18, 20, 28):
        save(tmp_path, model, optimizer, keep=3, epoch=step // 10, step=step)
    save(tmp_path, model, optimizer, keep=3, epoch=1, step=15)  # the run has gone on from an earlier one
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["model_checkpoint_1", "model_checkpoint_1_step_5"]


def test_a_run_is_resumed_from_the_newest_intact_checkpoint(tmp_path):
    model, optimizer = small()
    for step in (6, 10, 20, 24):
        save(tmp_path, model, optimizer, keep=None, epoch=step // 10, step=step)
    assert find_newest_intact(tmp_path, 3).name == "model_checkpoint_2_step_4"
    assert find_newest_intact(tmp_path, 2).name == "model_checkpoint_2"  # the run is to end there
    (tmp_path / "model_checkpoint_2_step_4" / HEADER).unlink()
    assert find_newest_intact(tmp_path, 3).name == "model_checkpoint_2"


def test_what_ranks_know_alone_is_read_as_it_is_written_today_and_as_it_was_before(tmp_path):
    within = header(step=34)
    today = PROGRESS.model_copy(update={"sum_parts": 8})
    written = {8: np.arange(16.0).reshape(2, 8, 1), 4: np.arange(8.0).reshape(2, 4, 1)}
    for progress, parts, columns in ((today, 8, 1), (PROGRESS, 4, 4)):
        counts = np.full((2, columns), 5, np.int64)
        store.write_npz(tmp_path / store.RANKS, {"own": RANKS.own, "sums": written[parts], "counts": counts})
        read = read_ranks(tmp_path, within, progress)
        assert np.array_equal(read.sums, written[parts])
        assert np.array_equal(read.counts, counts)
        other = PROGRESS if progress is today else today
        with pytest.raises(UserError, match=r"ranks\.npz"):
            read_ranks(tmp_path, within, other)


@pytest.mark.parametrize(
    "record",
    [
        {"phase": "../../elsewhere"},
        {"phase": 1},
        {"epoch": 1.5},
        {"loss": "low"},
        {"accuracy": [1]},
        {"seconds": None},
    ],
)
def test_records_of_other_forms_are_refused(tmp_path, record):
    good = {"phase": "test", "epoch": 2, "loss": 0.5, "seconds": 1, "images_per_second": 2.0}
    (tmp_path / store.PROGRESS).write_text(json.dumps({"records": [good]}))
    assert read_progress(tmp_path).records == (good,)
    lacking = {name: value for name, value in good.items() if name not in record}
    for changed in [good | record] + ([lacking] if lacking != good else []):
        (tmp_path / store.PROGRESS).write_text(json.dumps({"records": [good, changed]}))
        with pytest.raises(UserError, match=r"progress\.json: not the progress of a run"):
            read_progress(tmp_path)


def test_progress_is_a_file_of_bounded_size(tmp_path):
    with (tmp_path / store.PROGRESS).open("wb") as file:
        file.truncate(2**40)  # a terabyte of which nothing is on the disk
    with pytest.raises(UserError, match=r"progress\.json: missing, or larger than 16 MiB"):
        read_progress(tmp_path)


def test_a_failed_save_leaves_the_older_checkpoint_and_nothing_else(tmp_path, monkeypatch):
    model, optimizer = small()
    path = save(tmp_path, model, optimizer, epoch=1)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(store, "write_npz", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(
        UserError, match=r"model_checkpoint_2: the checkpoint could not be written: optimizer\.npz: No space"
    ):
        save(tmp_path, model, optimizer, epoch=2)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    model, optimizer = small()
    path = save(tmp_path, model, optimizer, epoch=1)
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=20 * 2**20))
    with pytest.raises(
        UserError,
        match=r"not written: 20.0 MiB are free, [\d.]+ MiB are needed; free some space, then continue with --resume",
    ):
        save(tmp_path, model, optimizer, epoch=2)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["model", "optimizer", "ranks"])
def test_a_limit_reached_while_writing_leaves_the_older_checkpoint_and_nothing_else(tmp_path, monkeypatch, name):
    model, optimizer = small()
    path = save(tmp_path, model, optimizer, epoch=1)
    size = (path / OPTIMIZER_STATE).stat().st_size
    limit = {"model": 10**5, "optimizer": int(0.9 * size), "ranks": size}[name]
    ranks = RANKS if name != "ranks" else dataclasses.replace(RANKS, own=np.zeros((2, size // 8)))
    monkeypatch.setattr(store, "find_shortage", lambda *_: None)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        with pytest.raises(UserError, match=rf"model_checkpoint_2: .*: {name}\S*: File too large; raise the largest"):
            save_checkpoint(tmp_path, header(epoch=2), PROGRESS, ranks, contents(model, optimizer), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert find_damage(path) is None


def test_what_does_not_fit_is_known_before(tmp_path, monkeypatch):
    files = {"a": 3 * 2**20, "b": 50 * 2**20}
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 2**20))
    assert find_shortage(tmp_path, files) is None
    assert find_shortage(tmp_path, files, sets=2) == "100 MiB are free, 138 MiB are needed; free some space"
    for limit, fits in ((50 * 2**20, True), (50 * 2**20 - 1, False), (disk_space.resource.RLIM_INFINITY, True)):
        monkeypatch.setattr(disk_space.resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert (find_shortage(tmp_path, files) is None) == fits
    monkeypatch.setattr(disk_space.resource, "getrlimit", lambda _: (2**20, 2**20))
    assert find_shortage(tmp_path, files) == (
        "b takes 50.0 MiB, and this process may write files of at most 1.0 MiB; raise that limit (ulimit -f)"
    )


def test_restoring_keeps_the_configured_learning_rate(tmp_path):
    path = save(tmp_path, *small())
    model, _ = small()
    slower = keras.optimizers.Adam(0.001)
    slower.build(model.trainable_variables)
    restore_training(path, contents(model, slower))
    assert np.isclose(float(slower.learning_rate), 0.001)
    assert int(slower.iterations) == 1


def test_a_save_never_deletes_itself(tmp_path):
    model, optimizer = small()
    for epoch in (8, 9):
        save(tmp_path, model, optimizer, epoch=epoch)
    assert save(tmp_path, model, optimizer, epoch=1).exists()
