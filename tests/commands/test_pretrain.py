"""Pretraining with each kind of target and loss, in this process: what is reported, resumed, drawn and refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_config, write_untrained
from PIL import Image

from tfinpaint.checkpoint.reader import read_header
from tfinpaint.config.checks import check_command
from tfinpaint.config.loader import load_config
from tfinpaint.data import pipeline
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.tasks import inpainting_task
from tfinpaint.inpainting import classical
from tfinpaint.inpainting.classical import restore_by_baselines
from tfinpaint.inpainting.metrics import METRICS, measure_restoration
from tfinpaint.pretrain import main as pretrain
from tfinpaint.runs.photo_restoration import load_network

RESIZE = {"resize": [32, 32]}
CENTER = {"center": {"side": 0.5, "fill": "mean"}}
JOINT = {
    "data__transforms": [RESIZE, {"random_region": {}}],
    "loss": {"function": "L2", "target": "masked", "overlap": 2, "adversarial": {"weight": 0.01}},
    "model": {"encoder": "tiny", "bottleneck": "channelwise", "batchnorm_batches": 2},
}


def succeed(capsys, *arguments: str | Path) -> str:
    code = pretrain([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def records(folder: Path) -> list[dict]:
    """All but what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def arrays(path: Path) -> dict[str, np.ndarray]:
    """What a weight file or an optimizer's file holds."""
    if path.suffix == ".npz":
        return dict(np.load(path))
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.mark.stress
def test_the_joint_loss_is_reported_saved_and_resumed_exactly(capsys, images, tmp_path):
    whole = write_config(tmp_path / "whole" / "c.yaml", "pretrain", images, encoder="tiny", **JOINT)
    parted = write_config(tmp_path / "parted" / "c.yaml", "pretrain", images, encoder="tiny", **JOINT)
    succeed(capsys, "--config", whole)
    succeed(capsys, "--config", parted, "--set", "num_epochs=1")
    assert "Resuming from epoch 1 of 2" in succeed(capsys, "--config", parted, "--resume")
    assert records(tmp_path / "parted" / "run") == records(tmp_path / "whole" / "run")
    for record in records(tmp_path / "whole" / "run"):
        joint = 0.99 * record["reconstruction_loss"] + 0.01 * record["adversarial_loss"]
        assert record["loss"] == pytest.approx(joint, rel=1e-12)
        assert 0 < record["discriminator_loss"] < 10
    ours, theirs = (
        tmp_path / name / "run" / "model_checkpoints" / "model_checkpoint_2" for name in ("whole", "parted")
    )
    names = {"model.weights.h5", "optimizer.npz", "discriminator.weights.h5", "discriminator_optimizer.npz"}
    assert {path.name for path in ours.iterdir()} == names | {
        *("encoder.weights.h5", "checkpoint.json", "manifest.json", "progress.json", "ranks.npz")
    }
    for name in names:
        mine, its = arrays(ours / name), arrays(theirs / name)
        assert mine.keys() == its.keys()
        assert all(np.array_equal(mine[key], its[key]) for key in mine), name
    header = read_header(ours)
    assert (header.bottleneck, header.adversarial, header.restoration.fill) == ("channelwise", "Adam", "black")


@pytest.mark.stress
def test_baselines_and_network_are_measured_on_the_same_holes(capsys, images, tmp_path):
    config_file = write_config(
        tmp_path / "c.yaml", "pretrain", images, num_epochs=1, loss={"function": "L1", "target": "masked"},
        data__transforms=[RESIZE, {"random_horizontal_flip": 0.5}, {"random_block": {}}],
    )  # fmt: skip
    output = succeed(capsys, "--config", config_file)
    config = check_command(load_config(config_file), "pretrain", 1)
    recipe = inpainting_task(config, separate=False, augment=False)
    listing = sources.list_images(images / "testing")
    opened = Images.open(listing, RankShare(), recipe.images, preload=True)
    (batch,) = pipeline.evaluation_batches(opened, batch_size=7, seed=config.seed, prepare=recipe.prepare)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for name, restored in restore_by_baselines(batch["originals"].numpy(), batch["mask"].numpy()).items():
        expected = {key: value.numpy().mean() for key, value in measure_restoration(batch, restored).items()}
        assert summary["measurements"][name] == pytest.approx(expected, rel=1e-5)
    best = max(summary["measurements"][name]["hole_psnr_db"] for name in classical.BASELINES)
    assert summary["best_baseline_hole_psnr_db"] == best
    assert f"biharmonic {summary['measurements']['biharmonic']['hole_psnr_db']:.2f} dB" in output
    assert "Computing classical inpainting baselines on 7 held-out images" in output
    assert summary["baseline_images"] == 7
    # The network's own, from its checkpoint, batch by batch as nobody cut it: means do not depend on that.
    _, network = load_network(tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1")
    outputs = network(batch["originals"].numpy() * (1 - batch["mask"].numpy()), batch["mask"].numpy())
    expected = {key: value.numpy().mean() for key, value in measure_restoration(batch, outputs).items()}
    assert summary["measurements"]["network"] == pytest.approx(expected, rel=1e-3)
    page = (tmp_path / "run" / "report.html").read_text()
    assert ">hole: PSNR, dB ↑</td>" in page
    assert "data:image/gif;base64," in page


@pytest.mark.stress
def test_a_trained_network_beats_the_mean_colour_of_what_it_sees(capsys, images, tmp_path):
    # Every image is one colour, but for noise: a network that has learnt anything paints that colour.
    changes = {"num_epochs": 40, "figures_interval": 40, "loss": {"function": "L2", "target": "image", "overlap": 1}}
    config = write_config(
        tmp_path / "c.yaml", "pretrain", images, encoder="tiny", data__transforms=[RESIZE, CENTER],
        checkpoints={"save": None}, **changes,
    )  # fmt: skip
    succeed(capsys, "--config", config)
    tests = [record["hole_psnr_db"] for record in records(tmp_path / "run") if record["phase"] == "test"]
    assert max(tests) > tests[0] + 3
    assert len(list((tmp_path / "run" / "figures" / "animation").iterdir())) == 40
    assert Image.open(tmp_path / "run" / "figures" / "animation.gif").n_frames == 40


@pytest.mark.stress
@pytest.mark.parametrize(
    ("mask", "loss", "model"),
    [
        (
            {"random_patches": {"size": 8, "area": 0.3, "fill": "noise"}},
            {"target": "patches"},
            {"bottleneck": "channelwise"},
        ),
        (
            {"grid": {"size": 8, "ratio": 0.75}},
            {"function": "L2", "target": "masked", "normalize_patches": 8},
            {"decoder": "batchnorm", "batchnorm_visible_only": True},
        ),
    ],
)
def test_other_masks_targets_and_decoders_train(capsys, images, tmp_path, mask, loss, model):
    model = {"encoder": "tiny", "batchnorm_batches": 1, **model}
    changes = {"num_epochs": 1, "steps_per_epoch": 1, "loss": loss, "model": model, "encoder": "tiny"}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, data__transforms=[RESIZE, mask], **changes)
    output = succeed(capsys, "--config", config)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    measured = "normalize_patches" not in loss  # such outputs cannot be compared with pixels
    assert ("measurements" in summary) == measured
    assert ("PSNR of the baselines in the hole" in output) == measured
    assert np.isfinite(summary["test_loss"])
    assert (tmp_path / "run" / "figures" / "restorations" / "epoch_1.png").exists()
    header = read_header(tmp_path / "run" / "model_checkpoints" / "model_checkpoint_1")
    assert header.output_activation == ("sigmoid" if measured else "linear")
    assert (header.restoration is not None) == measured
    assert (header.bottleneck, header.decoder) == (model.get("bottleneck"), model.get("decoder", "plain"))


@pytest.mark.stress
def test_the_perceptual_loss_takes_an_encoder_of_an_earlier_run(capsys, images, tmp_path):
    encoder = write_untrained(tmp_path / "first" / "run" / "model_checkpoints")
    short = {"num_epochs": 1, "steps_per_epoch": 2, "data__transforms": [RESIZE, CENTER]}
    before = arrays(encoder / "encoder.weights.h5")
    perceptual = {"encoder": "../first/run/model_checkpoints/model_checkpoint_1", "layer": "conv3_block1_out"}
    loss = {"target": "masked", "perceptual": perceptual}
    config = write_config(tmp_path / "second" / "c.yaml", "pretrain", images, loss=loss, **short)
    succeed(capsys, "--config", config)
    for record in records(tmp_path / "second" / "run"):
        assert record["perceptual_loss"] > 0
        total = record["reconstruction_loss"] + 0.1 * record["perceptual_loss"]
        assert record["loss"] == pytest.approx(total, rel=1e-12)
    assert all(np.array_equal(before[key], value) for key, value in arrays(encoder / "encoder.weights.h5").items())
    for layer, message in (("conv9", "no layer 'conv9'; the most similar"), (None, "no such checkpoint")):
        wrong = f"loss.perceptual.layer={layer}" if layer else "loss.perceptual.encoder=/no/such"
        again = ["--config", str(config), "--workdir", str(tmp_path / "third"), "--set", wrong]
        assert pretrain(again) == 2
        assert message in capsys.readouterr().err


@pytest.mark.stress
def test_evaluation_alone_measures_and_draws(capsys, images, tmp_path):
    loss = {"target": "masked", "adversarial": {}}
    changes = {"num_epochs": 1, "loss": loss, "data__transforms": [RESIZE, CENTER]}
    config = write_config(tmp_path / "c.yaml", "pretrain", images, **changes)
    succeed(capsys, "--config", config)
    load = f"checkpoints.load={tmp_path}/run/model_checkpoints/model_checkpoint_1"
    alone = ("--set", "data.input_path=null", "--set", load, "--workdir", tmp_path / "alone")
    succeed(capsys, "--config", config, *alone)
    trained, evaluated = records(tmp_path / "run")[-1], records(tmp_path / "alone")[-1]
    assert [evaluated[name] for name in METRICS] == pytest.approx([trained[name] for name in METRICS], rel=1e-6)
    # There is no discriminator to ask: the loss is that of the reconstruction.
    assert evaluated["loss"] == pytest.approx(trained["reconstruction_loss"], rel=1e-6)
    assert (tmp_path / "alone" / "figures" / "restorations" / "epoch_0.png").exists()
