"""An encoder with the small stem through all commands: pretraining, transfer, features, restoration."""

import numpy as np
import pytest
from commandline import refuse, succeed
from conftest import write_config
from PIL import Image

from tfinpaint.checkpoint.reader import read_header
from tfinpaint.probing.encoder import load_encoder

SIZE = [{"resize": [24, 16]}]
MODEL = {"encoder": "tiny", "stem": "small", "encoder_output": "after_relu", "batchnorm_batches": 2}


@pytest.mark.stress
def test_a_small_stem_goes_through_all_commands(images, tmp_path):
    mask = {"grid": {"size": 8, "ratio": 0.5}}
    model = MODEL | {"batchnorm_visible_only": True}
    changes = {"num_epochs": 1, "recompute": True, "data__transforms": [*SIZE, mask], "model": model}
    first = write_config(tmp_path / "first.yaml", "pretrain", images, "tiny", **changes)
    succeed("pretrain", "--config", first, "--workdir", tmp_path / "first")
    header = read_header(tmp_path / "first" / "model_checkpoints" / "model_checkpoint_1")
    assert (header.encoder, header.stem, header.height, header.width) == ("tiny", "small", 16, 24)

    load = {"load": str(tmp_path / "first")}
    changes = {"num_epochs": 1, "data__transforms": SIZE, "optimizer__layer_decay": 0.5, "checkpoints": load}
    second = write_config(tmp_path / "second.yaml", "classify", images, "tiny", model=MODEL, **changes)
    output = succeed("classify", "--config", second, "--workdir", tmp_path / "second")
    assert (
        "Transferred 34 layers by name; the head (dense_1) is new; 3 further layers of model_checkpoint_1 are not needed"
        in output
    )

    standard = ("--set", "model.stem=standard", "--set", "data.transforms=[{resize: [32, 32]}]")
    output = succeed("classify", "--config", second, *standard, "--workdir", tmp_path / "third")
    assert (
        "Skipping layer conv1_conv: model_checkpoint_1 has weights [(3, 3, 3, 4), (4,)], the model [(7, 7, 3" in output
    )
    evaluation = ("--set", "data.input_path=null", "--set", f"checkpoints.load={tmp_path / 'second'}")
    error = refuse("classify", "--config", second, *standard, *evaluation, "--workdir", tmp_path / "fourth")
    assert "its stem is small, model.stem is standard" in error

    source = load_encoder(tmp_path / "first")
    assert (source.encoder, source.stem, source.model.output_shape) == ("tiny", "small", (None, 2, 3, 128))
    succeed("features", tmp_path / "second", images / "testing", "--output", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert [found[f"stage{stage}"].shape for stage in (2, 3, 4, 5)] == [(7, n) for n in (16, 32, 64, 128)]

    hole = np.zeros((20, 30), np.uint8)
    hole[5:12, 8:16] = 255
    photo, white = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(photo)
    Image.fromarray(hole).save(white)
    succeed("predict", tmp_path / "first", photo, white, "--output", tmp_path / "restored.png")
    restored = np.asarray(Image.open(tmp_path / "restored.png"))
    assert restored.shape == (20, 30, 3)
    assert (restored[hole == 0] == 90).all()
