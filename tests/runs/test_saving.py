"""Saving: a checkpoint that does not fit is told before, and one that cannot be written as soon as that is known."""

from types import SimpleNamespace

import keras
import pytest

from tfinpaint.checkpoint import async_writer
from tfinpaint.checkpoint.async_writer import AsyncWriter
from tfinpaint.checkpoint.header import Header, SavedProgress
from tfinpaint.checkpoint.store import TrainingState
from tfinpaint.errors import UserError
from tfinpaint.runs import saving

HEADER = Header(
    kind="classifier", epoch=1, step=10, encoder=None, encoder_output=None, height=8, width=8, batch_size=4, steps_per_epoch=10
)  # fmt: skip


def live() -> TrainingState:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    return TrainingState(model, optimizer, None)


def test_a_failure_of_the_thread_is_raised_once_and_without_another_save(tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("no space")

    monkeypatch.setattr(async_writer, "save_checkpoint", fail)
    writer = AsyncWriter(live(), lambda contents: contents)
    writer.write(tmp_path, HEADER, SavedProgress(), None, 2)
    writer._thread.join(10)
    with pytest.raises(UserError, match="no space"):
        writer.raise_failure()
    writer.wait()


@pytest.mark.parametrize(
    ("resumed", "keep", "probe", "sets"),
    [(None, 2, None, 3), (None, None, None, 2), (None, 2, object(), 4), (object(), 2, object(), 1)],
)
def test_what_will_not_fit_is_told_before_training(tmp_path, monkeypatch, caplog, resumed, keep, probe, sets):
    asked = []
    monkeypatch.setattr(
        saving, "find_shortage", lambda folder, files, sets: asked.append((files, sets)) or "1 MiB is free"
    )
    checkpoints = SimpleNamespace(save=tmp_path, keep=keep)
    run = SimpleNamespace(config=SimpleNamespace(checkpoints=checkpoints, probe=probe), resumed=resumed)
    saving._warn_of_shortage(run, live())
    assert asked[0][0]["model.weights.h5"] == 4 * (3 * 2 + 2)
    assert asked[0][1] == sets
    assert f"The checkpoints will not fit into {tmp_path}: 1 MiB is free" in caplog.text
    checkpoints.save = None
    saving._warn_of_shortage(run, live())
    assert len(asked) == 1
