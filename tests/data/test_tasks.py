"""The batches of inpainting: what they hold, how its parts fit together pixel by pixel, the same on any rank."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_images

from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import MASKS
from tfinpaint.data import masks, pipeline
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.masks import fill_hole
from tfinpaint.data.tasks import inpainting_task
from tfinpaint.data.transforms import Keys

HEIGHT, WIDTH = 16, 24
KINDS = {
    "random_patches": {"number": 3, "size": 5},
    "center": {"side": 0.5},
    "random_block": {"side": [0.25, 0.5], "number": 2},
    "random_region": {"area": [0.2, 0.3]},
    "grid": {"size": 4, "ratio": 0.75},
}
FILLS = ("black", "mean", "noise")
STRESS = pytest.mark.stress
# Every kind of target: the section `loss`, and whether pixels count differently.
LOSSES = {
    "patches": ({"target": "patches"}, False),
    "image": ({"target": "image"}, False),
    "image with overlap": ({"target": "image", "overlap": 2}, True),
    "masked": ({"target": "masked"}, True),
    "masked with overlap": ({"target": "masked", "overlap": 1, "overlap_weight": 4.0}, True),
    "normalised image": ({"target": "image", "function": "MSE", "normalize_patches": 4}, False),
    "normalised masked": ({"target": "masked", "function": "L1", "normalize_patches": 8}, True),
}


def make_config(kind="random_patches", fill="black", loss="patches", shared=(), **data):
    steps = [{"resize": [WIDTH, HEIGHT]}, *shared, {kind: {**KINDS[kind], "fill": fill}}]
    section = {"function": "BCE", **LOSSES[loss][0]}
    return Config.model_validate({"seed": 5, "loss": section, "data": {"transforms": steps, **data}})


def make_batch(count=6, first=0, channels=3, epoch=2):
    """What a task's `prepare` gets: images of the size of the configurations here, with examples of odd numbers."""
    pixels = np.random.default_rng(0).random((first + count, HEIGHT, WIDTH, channels), np.float32)[first:]
    examples = tf.range(first, first + count, dtype=tf.int64) * 2 + 1
    return {"images": tf.constant(pixels), "labels": tf.zeros([count], tf.int32), "examples": examples, "epoch": tf.constant(epoch, tf.int64)}  # fmt: skip


def prepared(config, batch, *, separate=False, augment=True):
    tf.config.run_functions_eagerly(True)  # compiling is for the tests of the pipeline
    try:
        return inpainting_task(config, separate=separate, augment=augment).prepare(batch)
    finally:
        tf.config.run_functions_eagerly(False)


def numpy_of(batch):
    return {name: value.numpy() for name, value in batch.items()}


def test_every_kind_is_among_the_cases():
    assert set(KINDS) == set(MASKS)
    assert {section["target"] for section, _ in LOSSES.values()} == {"patches", "image", "masked"}


# Each kind of mask with three kinds of targets; all pairs in the stress tier.
PAIRS = [
    pytest.param(kind, loss, marks=() if (row - column) % 5 < 2 else STRESS)
    for row, kind in enumerate(KINDS)
    for column, loss in enumerate(LOSSES)
]


@pytest.mark.parametrize(("kind", "loss"), PAIRS)
def test_the_parts_of_a_batch_fit_together_pixel_by_pixel(kind, loss):
    fill = FILLS[(list(KINDS).index(kind) + list(LOSSES).index(loss)) % 3]
    config, batch = make_config(kind, fill, loss), make_batch()
    section, weighs = LOSSES[loss]
    assert config.weighs_pixels == weighs
    found = prepared(config, batch)
    assert set(found) == {"inputs", "targets", "originals", "mask"} | ({"weights"} if weighs else set())
    assert all(part.dtype == tf.float32 for part in found.values())
    found, images = numpy_of(found), batch["images"].numpy()
    keys = Keys(5, batch["epoch"], batch["examples"])
    mask = found["mask"]
    assert mask.shape == (6, HEIGHT, WIDTH, 1)
    assert np.array_equal(mask, masks.draw_mask(config.mask, keys, height=HEIGHT, width=WIDTH))
    assert np.array_equal(found["originals"], images)
    # The network sees the originals outside the hole, and nothing of them inside.
    hole = np.broadcast_to(mask == 1, images.shape)
    assert 0 < hole.mean() < 1
    assert np.array_equal(found["inputs"][~hole], images[~hole])
    filling = {
        "black": np.zeros_like(images),
        "mean": np.mean(images, axis=(1, 2), where=~hole, keepdims=True, dtype=np.float64),
        "noise": fill_hole(images, tf.ones_like(mask), "noise", keys).numpy(),
    }[fill]
    assert np.allclose(found["inputs"][hole], np.broadcast_to(filling, images.shape)[hole], rtol=1e-6)
    # It is compared with the part that was erased, or with the whole.
    wanted = np.where(hole, images, 0) if section["target"] == "patches" else images
    if size := section.get("normalize_patches"):
        cells = wanted.astype(np.float64).reshape(6, HEIGHT // size, size, WIDTH // size, size, 3)
        mean, variance = cells.mean(axis=(2, 4, 5), keepdims=True), cells.var(axis=(2, 4, 5), keepdims=True)
        wanted = ((cells - mean) / np.sqrt(variance + 1e-6)).reshape(images.shape)
        assert np.allclose(found["targets"], wanted, atol=1e-5)
    else:
        assert np.array_equal(found["targets"], wanted)
    if weighs:
        reach = section.get("overlap", 0)
        wide, places = np.pad(mask, ((0, 0), (reach, reach), (reach, reach), (0, 0))), range(2 * reach + 1)
        near = np.max([wide[:, y : y + HEIGHT, x : x + WIDTH] for y in places for x in places], axis=0)
        around = np.where(near == 1, section.get("overlap_weight", 10), section["target"] == "image")
        assert np.array_equal(found["weights"], np.where(mask == 1, 1, around))


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_noise_are_new_in_every_pass_and_for_every_example(kind):
    config = make_config(kind, "noise")
    first, other = (numpy_of(prepared(config, make_batch(epoch=epoch))) for epoch in (0, 1))
    if kind != "center":
        assert (first["mask"] != other["mask"]).any(axis=(1, 2, 3)).all()
        assert all((a != b).any() for a, b in itertools.combinations(first["mask"], 2))
    both = np.broadcast_to((first["mask"] == 1) & (other["mask"] == 1), first["inputs"].shape)
    assert (first["inputs"] != other["inputs"])[both].mean() > 0.99


def test_own_steps_come_after_the_hole_and_leave_the_originals_alone():
    own = {"input_transforms": [{"normalize": {"mean": 0.5, "std": 0.25}}], "target_transforms": [{"grayscale": True}]}
    batch = make_batch()
    plain = numpy_of(prepared(make_config(fill="mean", loss="masked"), batch))
    found = numpy_of(prepared(make_config(fill="mean", loss="masked", **own), batch))
    for name in ("originals", "mask", "weights"):
        assert np.array_equal(found[name], plain[name])
    assert np.allclose(found["inputs"], (plain["inputs"] - 0.5) / 0.25, atol=1e-5)
    assert found["targets"].shape == (6, HEIGHT, WIDTH, 1)
    assert np.allclose(found["targets"], plain["targets"] @ np.float32([[0.2989], [0.587], [0.114]]), atol=1e-5)


def test_without_augmentation_random_steps_go_and_the_mask_stays():
    own = {"input_transforms": [{"random_vertical_flip": 1.0}], "target_transforms": [{"random_horizontal_flip": 1.0}]}
    config, batch = make_config(**own), make_batch()
    augmented, found = (numpy_of(prepared(config, batch, augment=augment)) for augment in (True, False))
    assert np.array_equal(found["mask"], augmented["mask"])
    assert np.array_equal(found["inputs"], np.where(found["mask"] == 1, 0, found["originals"]))
    assert np.array_equal(augmented["inputs"], found["inputs"][:, ::-1])
    assert np.array_equal(augmented["targets"], found["targets"][:, :, ::-1])
    shared = make_config(shared=[{"random_horizontal_flip": 0.5}])
    numbers = [
        [n for n, _ in inpainting_task(shared, separate=False, augment=a).images.per_batch] for a in (True, False)
    ]
    assert numbers == [[1], []]


@pytest.mark.parametrize("target", ["patches", "image", "masked"])
def test_separate_targets_are_cut_by_the_mask_of_the_inputs(target):
    batch = make_batch()
    batch["targets"] = make_batch(first=20)["images"]
    config = make_config("random_block", loss=target)
    found, others = numpy_of(prepared(config, batch, separate=True)), batch["targets"].numpy()
    assert np.array_equal(found["originals"], batch["images"])
    assert np.array_equal(found["inputs"], np.where(found["mask"] == 1, 0, batch["images"]))
    assert np.array_equal(found["targets"], np.where(found["mask"] == 1, others, 0) if target == "patches" else others)
    assert not np.array_equal(found["targets"], prepared(config, make_batch())["targets"])


@pytest.mark.parametrize("target", ["patches", "image"])
def test_label_maps_stay_integers(target):
    # No step changes their values: neither the shared `normalize` nor that of the targets.
    steps = {"shared": [{"normalize": {"mean": 0.5}}], "target_transforms": [{"normalize": {"std": 0.1}}]}
    config = make_config("grid", loss=target, target_is_mask=True, **steps)
    batch = make_batch()
    values = np.random.default_rng(1).integers(0, 4, (6, HEIGHT, WIDTH, 1)).astype(np.float32)
    task = inpainting_task(config, separate=True, augment=True)
    assert task.targets.decoding.is_label_map
    assert [step.kind for _, step in (*task.targets.per_image, *task.targets.per_batch)] == []
    found = prepared(config, {**batch, "targets": tf.constant(values)}, separate=True)
    assert found["targets"].dtype == tf.int32
    assert "weights" not in found
    expected = values * found["mask"].numpy() if target == "patches" else values
    assert np.array_equal(found["targets"], expected[..., 0])


# ---- through the pipeline


@pytest.fixture
def listing(tmp_path):
    return sources.list_images(write_images(tmp_path / "x", {"a": 12, "b": 11}, size=(WIDTH, HEIGHT)))


def batches(listing, config, *shards, training=True):
    """Of each shard, the batches of two passes of training, or of one evaluation."""
    task, found = inpainting_task(config, separate=False, augment=training), []
    for shard in shards:
        images = Images.open(listing, shard, task.images, True)
        if training:
            data = pipeline.train_batches(images, batch_size=8, seed=5, first_step=1, prepare=task.prepare).take(3)
        else:
            data = pipeline.evaluation_batches(images, batch_size=8, seed=5, prepare=task.prepare)
        found.append((data.element_spec, [numpy_of(batch) for batch in data]))
    return found


@pytest.mark.parametrize(
    ("kind", "fill", "loss", "training"),
    [
        ("random_patches", "black", "patches", True),
        ("center", "noise", "normalised masked", False),
        pytest.param("random_block", "mean", "masked with overlap", True, marks=STRESS),
        ("random_region", "noise", "masked", True),
        pytest.param("grid", "mean", "image", False, marks=STRESS),
    ],
)
def test_shards_put_together_are_the_batches_of_one(listing, kind, fill, loss, training):
    config = make_config(kind, fill, loss, shared=[{"random_horizontal_flip": 0.5}])
    one, *two = batches(listing, config, RankShare(), RankShare(0, 2), RankShare(1, 2), training=training)
    sides = {"inputs": 3, "targets": 3, "originals": 3, "mask": 1} | ({"weights": 1} if config.weighs_pixels else {})
    for spec, _ in (one, *two):
        shapes = {name: tensor.shape.as_list()[1:] for name, tensor in spec.items()}
        expected = {name: [HEIGHT, WIDTH, channels] for name, channels in sides.items()}
        assert shapes == expected | ({"examples": []} if training else {})
    assert sum(len(batch["inputs"]) for batch in one[1]) == (24 if training else 23)
    for whole, *parts in zip(one[1], two[0][1], two[1][1], strict=True):
        for name, values in whole.items():
            for rank, part in enumerate(parts):
                mine = values[rank::2]
                if "normalised" in loss and name == "targets":  # sums over cells may be rounded in another order
                    assert np.allclose(part[name], mine, rtol=0, atol=1e-5)
                else:
                    assert np.array_equal(part[name], mine), name


def test_evaluation_holds_the_images_of_the_files_and_the_same_masks_each_time(listing):
    config = make_config("random_region", "noise", "masked", shared=[{"random_horizontal_flip": 1.0}])
    ((_, first),) = batches(listing, config, RankShare(), training=False)
    ((_, second),) = batches(listing, config, RankShare(), training=False)
    for name in first[0]:
        assert np.array_equal(np.concatenate([b[name] for b in first]), np.concatenate([b[name] for b in second]))
    files = [read_image(listing.open(i), DecodeOptions()) for i in range(len(listing))]
    assert np.array_equal(np.concatenate([batch["originals"] for batch in first]), np.stack(files) / np.float32(255))
