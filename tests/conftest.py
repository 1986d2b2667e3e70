"""Fixtures that write small real files: folders of images, configurations for the tiny model."""

import gc
import json
import os
import zipfile
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import tfinpaint  # noqa: F401 -- sets what Keras reads, before a test imports it

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pretended import Pretended
    from ranks import Session

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
NATURAL_IMAGES = SHARED / "data" / "natural_images_30px.zip"


def write_images(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 24), seed: int = 0) -> Path:
    """Class folders of noisy images whose mean colour tells the class. `size` is (width, height)."""
    generator = np.random.default_rng(seed)
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        colour = np.array([40, 90, 200]) if number % 2 else np.array([220, 120, 30])
        for i in range(count):
            pixels = np.clip(colour + generator.normal(0, 25, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03}.png")
    return root


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder, path -> contents."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def zipped(folder: Path, archive: Path, prefix: str) -> Path:
    """A zip of a folder's files, their paths preceded by `prefix`."""
    with zipfile.ZipFile(archive, "w") as file:
        for name, contents in tree(folder).items():
            file.writestr(f"{prefix}{name}", contents)
    return archive


SMALL = [
    {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}},
    {"class_name": "BatchNormalization"},
    {"class_name": "ReLU"},
]
SMALL_ENDS = {
    "pretrain": [
        {"class_name": "UpSampling2D", "config": {"size": 2}},
        {
            "class_name": "Conv2D",
            "config": {"filters": 3, "kernel_size": 3, "padding": "same", "activation": "sigmoid"},
        },
    ],
    "classify": [
        {"class_name": "GlobalAveragePooling2D"},
        {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
    ],
}


def write_config(path: Path, task: str, data: Path, encoder: str | None = None, **changes: object) -> Path:
    """A configuration of a run on `data/{training,testing}`; `changes` are dotted keys with __ for dots.

    The network has two convolutions, because building and tracing the layers of a deep one takes most of the time of a
    short run; or it is the project's own, with the encoder of this name. The mask of pretraining is the one that XLA
    compiles fastest.
    """
    config: dict = {
        "workdir": str(path.parent / "run"),
        "num_epochs": 2,
        "precision": "float32",
        "data": {
            "input_path": str(data / "training"),
            "test_input_path": str(data / "testing"),
            "batch_size": 8,
            "test_batch_size": 4,
            "preload": True,
            "transforms": [{"resize": [32, 32]}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01},
        "model": {"batchnorm_batches": 2},
    }
    if encoder:
        config["model"]["encoder"] = encoder
    else:
        entrance = {"class_name": "InputLayer", "config": {"batch_shape": [None, None, None, 3]}}
        config["layers"] = [entrance, *SMALL, *SMALL_ENDS[task]]
    if task == "pretrain":
        config["data"]["type"] = "images"
        config["data"]["transforms"].append({"center": {}})
        config["loss"] = {"function": "BCE"}
    else:
        config["data"]["target_type"] = "labels"
        config["loss"] = {"function": "NLL"}
    for key, value in changes.items():
        section = config
        *parents, last = key.split("__")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def write_training_and_testing(folder: Path) -> Path:
    """`folder/data`: training/ with 13 + 11 images and testing/ with 4 + 3, classes `cold` and `warm`."""
    write_images(folder / "data" / "training", {"cold": 13, "warm": 11})
    write_images(folder / "data" / "testing", {"cold": 4, "warm": 3}, seed=1)
    return folder / "data"


def write_untrained(folder: Path, output: str = "before_add", channels: int = 3) -> Path:
    """A checkpoint of a context encoder with the encoder `tiny`, which ends at `output` and has not been trained."""
    import keras

    from tfinpaint.checkpoint.header import Header, RankState, SavedProgress
    from tfinpaint.checkpoint.store import TrainingState, save_checkpoint
    from tfinpaint.config.encoders import ARCHITECTURES
    from tfinpaint.models.decoder import build_inpainter, encoder_part
    from tfinpaint.models.encoder import build_encoder

    model = build_inpainter(build_encoder("tiny", output, 32, 32, channels), channels)
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    fields = {"kind": "inpainter", "epoch": 1, "step": 1, "encoder": "tiny", "encoder_output": output}
    fields |= {"batch_size": 8, "steps_per_epoch": 1, "channels": channels, "target_channels": channels}
    header = Header(**fields, height=32, width=32)
    end = ARCHITECTURES["tiny"].before_add if output == "before_add" else ARCHITECTURES["tiny"].stages[5]
    state = TrainingState(model, optimizer, encoder_part(model, end))
    ranks = RankState(np.zeros((1, 0)), np.zeros((1, 0, 0)), np.zeros((1, 0), np.int64))
    return save_checkpoint(folder, header, SavedProgress(), ranks, state, None)


def save_undrawn(figure: "Figure", file: BinaryIO, *, metadata: dict[str, str], **_: object) -> None:
    """Write a picture of a few pixels with a figure's texts, in place of `Figure.savefig`."""
    texts = PngInfo()
    for name, text in metadata.items():
        texts.add_itxt(name, text)
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=texts)


TIMES = ("seconds", "images_per_second")


def write_small(folder: Path, data: Path, **changes: object) -> Path:
    """A classifier of two layers with all that has a memory: batch norm, dropout, moments, a schedule."""
    config = {
        "workdir": str(folder / "run"),
        "num_epochs": 4,
        "deterministic": True,
        "precision": "float32",
        "figures_interval": 100,
        "data": {
            "input_path": str(data / "training"),
            "test_input_path": str(data / "testing"),
            "target_type": "labels",
            "batch_size": 4,
            "test_batch_size": 4,
            "transforms": [{"resize": [16, 16]}, {"random_horizontal_flip": 0.5}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01, "lr_scheduler": {"type": "Cosine", "warmup_epochs": 1}},
        "model": {"batchnorm_batches": 0},
        "layers": [
            {
                "class_name": "Conv2D",
                "config": {"filters": 4, "kernel_size": 3, "batch_input_shape": [None, 16, 16, 3]},
            },
            {"class_name": "BatchNormalization"},
            {"class_name": "ReLU"},
            {"class_name": "Dropout", "config": {"rate": 0.5}},
            {"class_name": "GlobalAveragePooling2D"},
            {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}},
        ],
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def outcome(run: Path) -> dict[str, object]:
    """Everything that must be the same: name of the last checkpoint, all weights and states, metrics but for times."""
    from tfinpaint.checkpoint.find import list_checkpoints

    last = list_checkpoints(run / "model_checkpoints")[-1]
    found: dict[str, object] = {"last": last.name}
    with h5py.File(last / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()].tobytes()}) if hasattr(item, "shape") else None)
    with np.load(last / "optimizer.npz", allow_pickle=False) as file:
        found |= {name: file[name].tobytes() for name in file.files}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: v for k, v in r.items() if k not in TIMES} for r in records]
    return found


def pytest_collection_finish() -> None:
    """Keep the garbage collector from visiting all imported modules and collected tests again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_training_and_testing(tmp_path)


@pytest.fixture(scope="session")
def small_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, a classifier of two convolutions, its `data`, and images that it never saw in `new`.

    Without any of the steps of the run, probabilities are others: images have 20 x 24, 60 x 31 and 50 x 90 pixels.
    """
    from commandline import succeed

    folder = tmp_path_factory.mktemp("small")
    data = write_training_and_testing(folder)
    write_images(folder / "new", {"cold": 3, "warm": 2}, size=(60, 31), seed=2)
    write_images(folder / "new" / "warm" / "larger", {"photos": 2}, size=(50, 90), seed=3)
    steps = {
        "data__transforms": [{"resize": [40, 36]}, {"center_crop": [32, 32]}, {"random_horizontal_flip": 0.5}],
        "data__input_transforms": [{"normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}],
    }
    succeed("classify", "--config", write_config(folder / "c.yaml", "classify", data, num_epochs=1, **steps))
    return folder


@pytest.fixture(scope="session")
def small_inpainter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two checkpoints of a tiny context encoder with random weights."""
    from restorations import write_checkpoint

    folder = tmp_path_factory.mktemp("inpainter")
    for epoch in (2, 10):
        write_checkpoint(folder / "model_checkpoints", epoch)
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `run`, a classifier by `write_small` that nothing has happened to, and its `c.yaml`."""
    from commandline import succeed

    folder = tmp_path_factory.mktemp("undisturbed")
    succeed("classify", "--config", write_small(folder, write_training_and_testing(folder)))
    return folder


@pytest.fixture(scope="module")
def undrawn_figures() -> Iterator[None]:
    """Save the figures of a module's runs without drawing them, which takes a fifth of a short run."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_undrawn)
        yield


@pytest.fixture
def seeded() -> None:
    """Draw the same random weights in each test."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def natural_images() -> Path:
    """The Natural Images set at 30 px, where it is at hand."""
    if not NATURAL_IMAGES.exists():
        pytest.skip(f"{NATURAL_IMAGES.name} is not beside the project")
    return NATURAL_IMAGES


@pytest.fixture
def photos_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photos in it."""
    from photo_project import PHOTOS

    write_images(tmp_path / "my photos", PHOTOS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> "Pretended":
    """Pretend the trainings that a command starts as processes."""
    from pretended import Pretended

    from tfinpaint.sweeping import processes

    pretended = Pretended()
    monkeypatch.setattr(processes, "start", pretended.start)
    return pretended


def two_ranks(launcher: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Session"]:
    """Start a session of two ranks; the tests of a whole pytest run share it, so it is ended after the last one."""
    from ranks import Session

    session = Session(launcher, tmp_path_factory.mktemp(launcher))
    yield session
    session.close()


@pytest.fixture(scope="session")
def mpi(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Session"]:
    yield from two_ranks("mpirun", tmp_path_factory)


@pytest.fixture(scope="session")
def gloo(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Session"]:
    yield from two_ranks("gloo", tmp_path_factory)
