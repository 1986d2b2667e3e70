"""The head that begins as logistic regression on the encoder's features: equal to it, and fitted once."""

import keras
import numpy as np
import pytest
from commandline import refuse, succeed
from conftest import outcome, write_config, write_untrained

from tfinpaint.checkpoint.reader import open_checkpoint
from tfinpaint.data.listing.listing import hold_out, list_class_folders
from tfinpaint.probing.classifiers import FEW_STRENGTHS, fit_linear_probe
from tfinpaint.probing.encoder import resized
from tfinpaint.probing.features import input_batches
from tfinpaint.runs.head_init import set_head
from tfinpaint.runs.progress import RunProgress

pytestmark = pytest.mark.usefixtures("undrawn_figures")

LINE = "The head begins as logistic regression on the features of"


@pytest.mark.parametrize(("classes", "width"), [(2, 6), (3, 6), (2, 100), (4, 100)])
def test_the_dense_layer_has_the_probabilities_of_the_regression(classes, width):
    generator = np.random.default_rng(0)
    labels = np.arange(40) % classes
    features = generator.normal(3 + labels[:, None], 2, (40, width)).astype(np.float32)
    probe = fit_linear_probe(features, labels, FEW_STRENGTHS)
    assert (probe.scaling.axes is None) == (width == 6)
    head = keras.layers.Dense(classes)
    head.build((None, width))
    set_head(head, probe)
    others = generator.normal(3, 2, (50, width)).astype(np.float32)
    given = keras.ops.softmax(head(others)).numpy()
    np.testing.assert_allclose(given, probe.probabilities(others), atol=1e-5)


def fine_tuning(folder, data, **changes):
    """A classifier that hardly moves: its checkpoint has the head that it began with."""
    changes = {
        "num_epochs": 1,
        "data__validation_fraction": 0.25,
        "data__transforms": [{"resize": [32, 32]}, {"random_horizontal_flip": 0.5}],
        "model": {"encoder": "tiny", "head": "pool", "head_init": "logistic_regression", "batchnorm_batches": 2},
        "optimizer": {"type": "SGD", "learning_rate": 1e-12},
        **changes,
    }
    return write_config(folder / "c.yaml", "classify", data, encoder="tiny", **changes)


@pytest.mark.stress
def test_a_classifier_begins_with_the_regression_on_the_images_to_train_on_and_fits_it_once(images, tmp_path):
    # Without a transfer the statistics of batch norms are those of the initialisation; with one, those of the images.
    base = write_untrained(tmp_path / "base")
    config = fine_tuning(tmp_path, images, checkpoints={"load": str(base), "interval": 1})
    output = succeed("classify", "--config", config)
    assert output.count(f"{LINE} 18 training images: C ") == 1
    with open_checkpoint(tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1") as saved:
        model = saved.model()
    pooled = keras.Model(model.input, model.get_layer("avg_pool").output)
    trained, _ = hold_out(list_class_folders(images / "training"), 0.25, seed=0)
    inputs = np.concatenate([batch.numpy() for batch in input_batches(trained, resized((32, 32, 3), ())[0])])
    features = pooled(inputs).numpy()
    probe = fit_linear_probe(features, trained.labels, FEW_STRENGTHS)
    np.testing.assert_allclose(model(inputs).numpy(), probe.probabilities(features), atol=1e-5)
    assert f"C {probe.strength:.4g}, accuracy in cross-validation {probe.validated:.4f}" in output


@pytest.mark.stress
def test_with_mixed_images_and_unfrozen_layers_a_run_that_stops_goes_on_to_the_same_bytes(
    images, tmp_path, monkeypatch
):
    changes = {"num_epochs": 2, "steps_per_epoch": 2, "deterministic": True, "figures_interval": 100}
    optimizer = {"type": "Adam", "learning_rate": 0.01, "unfreeze_every": 1, "ema_decay": 0.9}
    config = fine_tuning(
        tmp_path, images, **changes, optimizer=optimizer, data__mixup=0.4, checkpoints={"interval_steps": 1}
    )
    assert LINE in succeed("classify", "--config", config, "--workdir", tmp_path / "whole")
    taken = RunProgress.step

    def fail(self, epoch, read_loss):
        taken(self, epoch, read_loss)
        if self._done == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "step", fail)
        with pytest.raises((KeyboardInterrupt, AssertionError)):
            succeed("classify", "--config", config)
    output = succeed("classify", "--resume", "--workdir", tmp_path / "run")
    assert "Resuming from epoch 1 of 2, step 1 of 2" in output
    assert LINE not in output
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_what_it_needs_is_said_in_a_line(images, tmp_path):
    flat = fine_tuning(tmp_path, images, model={"encoder": "tiny", "head_init": "logistic_regression"})
    assert "fitted to averaged features, but model.head is flatten; set model.head: pool" in refuse(
        "classify", "--config", flat
    )
    pretrain = write_config(
        tmp_path / "p.yaml", "pretrain", images, encoder="tiny", model__head_init="logistic_regression"
    )
    assert "model.head_init is for classify only; remove it for pretrain" in refuse("pretrain", "--config", pretrain)
