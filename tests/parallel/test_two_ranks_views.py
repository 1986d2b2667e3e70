"""Two views on two ranks: negatives and covariances are those of the batch of all ranks, as on one rank."""

import pytest
from commandline import records
from conftest import write_config
from ranks import alone, largest_relative_difference, weights

pytestmark = [pytest.mark.parallel, pytest.mark.stress]

STEPS = [
    {"resize": [32, 32]},
    {"random_resized_crop": {"scale": [0.3, 1.0]}},
    {"random_horizontal_flip": 0.5},
    {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "probability": 0.8}},
    {"random_grayscale": 0.2},
    {"gaussian_blur": {"probability": 0.5}},
]
MASK = {"grid": {"size": 8, "ratio": [0, 0.25, 0.5], "fill": "mean"}}
MEASURES = ("alignment", "uniformity", "rankme", "agreement_gradient_norm")


def config(images, path, agreement, **changes):
    """Three SGD steps with batch norms that do not depend on a rank's share of the batch."""
    restored = {"function": "MSE", "target": "masked", "normalize_patches": 8, "reconstruction_weight": 0.5}
    changes = {
        "num_epochs": 1,
        "steps_per_epoch": 3,
        "optimizer": {"type": "SGD", "learning_rate": 0.01, "momentum": 0.9},
        "model": {"encoder": "tiny", "encoder_output": "after_relu", "trainable": "batchnorm_frozen"},
        "data__views": 2,
        "data__transforms": [*STEPS, MASK],
        "loss": {**restored, "agreement": {"projector": [16, 8], **agreement}},
        **changes,
    }
    return write_config(path, "pretrain", images, encoder="tiny", **changes)


# With the weight 1, the large gradients of Barlow Twins would make three steps amplify the rounding of float32.
@pytest.mark.parametrize(("name", "weight"), [("nt_xent", 1.0), ("vicreg", 1.0), ("barlow_twins", 0.001)])
def test_each_agreement_of_two_ranks_is_that_of_one(images, tmp_path, request, name, weight):
    # Each rank alone would compare 4 of the 8 images: the first step's loss would be another one.
    path = config(images, tmp_path / "c.yaml", {"type": name, "weight": weight})
    one = tmp_path / "one"
    alone("pretrain", "--config", path, "--workdir", one)
    for launcher in ("mpi", "gloo"):
        two = tmp_path / launcher
        request.getfixturevalue(launcher).succeed("pretrain", "--config", path, "--workdir", two)
        for model in ("model", "projector"):
            difference = largest_relative_difference(weights(two, model), weights(one, model))
            assert difference <= 1e-5, (launcher, model, difference)
        ours, theirs = records(two), records(one)
        assert len(ours) == len(theirs) == 2
        for mine, its in zip(ours, theirs, strict=True):
            assert mine.keys() == its.keys()
            for key in ("loss", "reconstruction_loss", "agreement_loss", *MEASURES, "reconstruction_gradient_norm"):
                if its["phase"] == "train" or key in its:  # gradients of a small part are rounded in larger ones
                    tolerance = 1e-3 if key.endswith("gradient_norm") else 1e-4
                    assert mine[key] == pytest.approx(its[key], rel=tolerance), (launcher, key)


def test_losses_and_measures_with_synchronised_batch_norms_are_those_of_one_rank_without_a_reconstruction(
    images, tmp_path, gloo
):
    model = {"encoder": "tiny", "encoder_output": "after_relu", "batchnorm_batches": 1}
    changes = {"model": model, "distributed": {"sync_batchnorm": True}, "data__transforms": STEPS, "steps_per_epoch": 1}
    loss = {"reconstruction_weight": 0, "agreement": {"projector": [16, 8]}}
    path = config(images, tmp_path / "c.yaml", {}, **changes, loss=loss)
    alone("pretrain", "--config", path, "--workdir", tmp_path / "one")
    gloo.succeed("pretrain", "--config", path, "--workdir", tmp_path / "two")
    ours, theirs = (records(tmp_path / name) for name in ("two", "one"))
    assert [record["phase"] for record in ours] == ["train"]  # nothing is restored, so nothing is scored
    for key in ("loss", "agreement_loss", *MEASURES):
        tolerance = 1e-2 if key.endswith("gradient_norm") else 1e-3
        assert ours[0][key] == pytest.approx(theirs[0][key], rel=tolerance), key


@pytest.mark.parametrize("views", [1, 2])
def test_the_probe_of_two_ranks_has_the_accuracies_of_one(images, tmp_path, mpi, gloo, views):
    changes = {"steps_per_epoch": 1, "num_epochs": 2, "probe": {"every": 2, "images": 15}, "data__views": views}
    loss = {"function": "MSE", "target": "masked"}
    loss |= {"agreement": {"projector": [16, 8]}} if views == 2 else {}
    path = config(images, tmp_path / "c.yaml", {}, **changes, loss=loss)
    alone("pretrain", "--config", path, "--workdir", tmp_path / "one")
    wanted = records(tmp_path / "one")[2]
    for launcher in (mpi, gloo) if views == 1 else (gloo,):
        output = launcher.succeed("pretrain", "--config", path, "--overwrite", "--workdir", tmp_path / "two")
        found = records(tmp_path / "two")
        assert "measured on 7 others" in output  # an odd number: the ranks' shares differ
        assert [("probe_stage5" in record) for record in found] == [False, False, True, False]
        for name in ("probe_stage3", "probe_stage4", "probe_stage5"):
            assert found[2][name] == pytest.approx(wanted[name]), (name, views)
