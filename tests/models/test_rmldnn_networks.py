"""rmldnn's public network files: each builds, with the parameters that Keras 2 counts."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, SHARED

from tfinpaint.errors import UserError
from tfinpaint.models.keras_json.build import build_network
from tfinpaint.models.keras_json.parse import read_network

ZIP = SHARED / "data" / "seed" / "rmldnn_configurations_and_networks.zip"
pytestmark = pytest.mark.skipif(not ZIP.exists(), reason=f"{ZIP.name} is not beside the project")
# (parameters, trainable parameters) that Keras 2 counts (tf_keras 2.21, which needs the names that YOLOv3's layers lack
# and Keras's name of the activation log_softmax_v2).
COUNTS = json.loads((ROOT / "tests" / "golden" / "rmldnn_networks.json").read_text())
QUICK = [
    "resources/classification/MobileNet/network.json",
    "tutorials/mnist_classification/mnist_keras_net.json",
    "tutorials/pets_image_segmentation/network_xception2D.json",
]


def extracted(name: str, folder: Path) -> Path:
    with zipfile.ZipFile(ZIP) as file:
        return Path(file.extract(name, folder))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.stress) for name in COUNTS]
)
def test_a_network_has_the_parameters_that_keras_2_counts(tmp_path, name):
    keras.backend.clear_session()
    model = build_network(read_network(extracted(name, tmp_path)), name)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert [model.count_params(), trainable] == COUNTS[name]


def test_every_network_file_is_counted_or_has_three_dimensions(tmp_path):
    with zipfile.ZipFile(ZIP) as file:
        files = {name for name in file.namelist() if name.endswith(".json") and "config" not in Path(name).name}
    others = files - set(COUNTS)
    assert set(COUNTS) <= files
    assert len(COUNTS) == 71
    assert {Path(name).name for name in others} == {"unet3d_poisson.json", "unet3d_seismic.json"}
    for name in others:
        with pytest.raises(
            UserError, match=r"layer .*3d.* \(.*3D\): this class is not supported, because images have two"
        ):
            build_network(read_network(extracted(name, tmp_path)), name)
