"""Each step against golden pixels, eagerly and in the pipeline; random ones against the draw they are made of."""

import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_images
from PIL import Image

from tfinpaint.config.schema import Config
from tfinpaint.config.transforms import MASKS, Transform
from tfinpaint.data import pipeline, transforms
from tfinpaint.data.examples import Images, Preprocessing, RankShare, split_steps
from tfinpaint.data.images.decode import DecodeOptions, read_image
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.pairing import pair_by_name
from tfinpaint.data.tasks import classification_task, image_to_image_task, inpainting_task
from tfinpaint.data.transforms import Keys, apply_transform, apply_transforms

RAMP = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]) / 15  # a grey image, 4 x 4
RGB = np.array([[[1.0, 0.0, 0.0], [0.0, 0.5, 1.0]]])  # a red and a blue-green pixel

# (step, image, the image that it must give, tolerance), with the derivation of each.
GOLDEN = {
    # Halving: the triangle filter of support 2 weighs pixels at distances 0.5, 0.5, 1.5 by 0.75, 0.75, 0.25, that is 3, 3,
    # 1 out of 7, for the first pixel of a row, mirrored for the second. Positions 0 1 2 3 give (0*3 + 1*3 + 2*1) / 7 = 5/7
    # and 3 - 5/7 = 16/7; the ramp is 4 * row + column, over 15.
    "resize": (
        {"resize": [2, 2]},
        RAMP,
        np.array([[25 / 7, 36 / 7], [69 / 7, 80 / 7]]) / 15,
    ),
    # Doubling, no anti-aliasing: the first row samples at -0.25 (clamped to 0), 0.25, 0.75, 1.25 (clamped to 1).
    "resize larger": ({"resize": [4, 1]}, np.array([[0.0, 1.0]]), np.array([[0.0, 0.25, 0.75, 1.0]])),
    # (4 - 2) // 2 = 1 row and (4 - 3) // 2 = 0 columns are left out before, the rest after.
    "center_crop": ({"center_crop": [3, 2]}, RAMP, RAMP[1:3, 0:3]),
    "random_horizontal_flip": ({"random_horizontal_flip": 1.0}, RAMP, RAMP[:, ::-1]),
    "random_vertical_flip": ({"random_vertical_flip": 1.0}, RAMP, RAMP[::-1]),
    # Clockwise by a quarter turn: the left column, read upwards, becomes the top row.
    "rotate": ({"rotate": 90.0}, RAMP, np.array([[12, 8, 4, 0], [13, 9, 5, 1], [14, 10, 6, 2], [15, 11, 7, 3]]) / 15),
    "rotate back": ({"rotate": -90.0}, RAMP, np.rot90(RAMP)),
    # By 45 degrees clockwise: a pixel right of the centre by (dx, dy) comes from (dx + dy, dy - dx) / sqrt(2). For the
    # corner (-1, -1) that is (-1.414, 0), outside by 0.414 of a pixel of 0: 0.586 of the pixel left of the centre.
    "rotate by half a quarter": (
        {"rotate": 45.0},
        np.array([[0, 0, 0], [0.5, 1, 0], [0, 0, 0]]),
        # top (0, -1) comes from (-0.707, -0.707): 0.293 * 0.293 of the centre + 0.707 * 0.293 of the left pixel;
        # left (-1, 0) from (-0.707, 0.707): the same two shares.
        np.array(
            [
                [0.5 * (2 - math.sqrt(2)), 0.5 * 0.2071068 + 0.0857864, 0],
                [0.5 * 0.2071068 + 0.0857864, 1, 0.0857864],
                [0, 0.0857864, 0],
            ]
        ),
    ),
    "convert_color swap": ({"convert_color": "BGR2RGB"}, RGB, RGB[..., ::-1]),
    # Luma 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601; tf.image rounds the first to 0.2989).
    "convert_color grey": ({"convert_color": "RGB2GRAY"}, RGB, [[[0.2989], [0.5 * 0.587 + 0.114]]]),
    "grayscale": ({"grayscale": True}, RGB, [[[0.2989], [0.5 * 0.587 + 0.114]]]),
    "convert_color of grey": ({"convert_color": "GRAY2RGB"}, [[[0.25]]], [[[0.25, 0.25, 0.25]]]),
    # Red: hue 0; (0, 0.5, 1): maximum blue, hue (4 + (R - G) / (max - min)) / 6 = (4 - 0.5) / 6 = 7/12 (210 degrees).
    "convert_color hsv": ({"convert_color": "RGB2HSV"}, RGB, [[[0, 1, 1], [7 / 12, 1, 1]]]),
    "convert_color from hsv": ({"convert_color": "HSV2BGR"}, [[[7 / 12, 1.0, 1.0]]], [[[1.0, 0.5, 0.0]]]),
    # Y as above; U = 0.492 (B - Y) + 0.5, V = 0.877 (R - Y) + 0.5: for red -0.147108 + 0.5 and 0.614777 + 0.5.
    "convert_color yuv": ({"convert_color": "RGB2YUV"}, RGB[:, :1], [[[0.299, 0.352892, 1.114777]]]),
    "convert_color from yuv": ({"convert_color": "YUV2RGB"}, [[[0.299, 0.352892, 1.114777]]], RGB[:, :1]),
    "normalize": ({"normalize": {"mean": 0.5, "std": 0.25}}, [[0.0, 0.5, 1.0]], [[-2.0, 0.0, 2.0]]),
    "normalize by channel": (
        {"normalize": {"mean": [0.0, 0.5, 1.0], "std": [1.0, 0.5, 2.0]}},
        RGB,
        [[[1.0, -1.0, -0.5], [0.0, 0.0, 0.0]]],
    ),
}


def as_batch(image) -> tf.Tensor:
    image = np.asarray(image, np.float32)
    return tf.constant(image[None] if image.ndim == 3 else image[None, :, :, None])


def keys(count: int = 1, epoch: int = 0, seed: int = 0) -> Keys:
    return Keys(seed, tf.constant(epoch, tf.int64), tf.range(count, dtype=tf.int64))


def one(section: dict, images: tf.Tensor, keys: Keys, *, number: int = 0, nearest: bool = False) -> np.ndarray:
    return apply_transform(images, Transform(**section), number, keys, nearest=nearest).numpy()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pixels_eagerly_and_in_a_pipeline(name):
    section, image, expected = GOLDEN[name]
    images, expected = as_batch(image), as_batch(expected)
    assert np.allclose(
        one(section, images, keys()), expected, atol=3e-4 if "color" in name or name == "grayscale" else 1e-5
    )

    def apply(images: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        step = ((0, Transform(**section)),)
        return apply_transforms(images, step, Keys(0, tf.constant(0, tf.int64), examples))

    dataset = tf.data.Dataset.from_tensors((images, tf.range(1, dtype=tf.int64))).map(apply)
    assert np.array_equal(next(iter(dataset)), one(section, images, keys()))


def test_every_step_is_among_the_golden_ones():
    drawn = {"jitter_crop", "random_zoom", "random_rotate", *MASKS}  # golden below, or in test_masks
    drawn |= {"random_resized_crop", "color_jitter", "random_grayscale", "gaussian_blur"}  # in files of their own
    golden = {Transform(**section).kind for section, *_ in GOLDEN.values()}
    assert golden | drawn == set(Transform.model_fields)
    assert not golden & drawn


def test_jitter_crop_cuts_each_side_by_its_own_share():
    # Shares 0.5, 0.25, 0.75, 0 of half of 8 columns and 8 rows: 2 left, 1 right, 3 above, 0 below.
    image = as_batch(np.arange(64).reshape(8, 8))
    shares = [tf.constant(share) for share in (0.5, 0.25, 0.75, 0.0)]
    assert np.array_equal(transforms.jitter_crop(image, shares), image[:, 3:8, 2:7])
    # 0.3 of half of 8 is 1.2: whole pixels are cut.
    assert transforms.jitter_crop(image, [tf.constant(0.3)] * 4).shape == (1, 6, 6, 1)


def test_jitter_crop_is_drawn_uniformly_below_its_limit():
    image = as_batch(np.arange(100 * 200).reshape(100, 200))
    sizes = [
        one({"jitter_crop": 0.5}, image, Keys(0, tf.constant(0, tf.int64), tf.constant([i], tf.int64)))
        for i in range(60)
    ]
    heights, widths = (np.array([size.shape[axis] for size in sizes]) for axis in (1, 2))
    assert heights.min() >= 100 - 2 * 24
    assert widths.min() >= 200 - 2 * 49
    # Two sides lose 0.25 * extent / 2 on average: 25 rows (less the half pixel that floor leaves on each side), 50 columns.
    assert abs(heights.mean() - (100 - 25 + 1)) < 4  # standard error 1.3
    assert abs(widths.mean() - (200 - 50 + 1)) < 8
    assert not np.array_equal(heights, widths // 2)


def test_zooming_by_half_enlarges_the_middle():
    # Half of the extent stays: output pixel i takes x = 1.5 + (i - 1.5) / 2 = 0.75, 1.25, 1.75, 2.25 of each axis; the
    # ramp is linear, so it takes those values.
    places = np.array([0.75, 1.25, 1.75, 2.25])
    expected = (4 * places[:, None] + places[None, :]) / 15
    zoomed = transforms.zoom(as_batch(RAMP), tf.constant([0.5]), nearest=False)
    assert np.allclose(zoomed[0, ..., 0], expected, atol=1e-5)
    assert np.allclose(transforms.zoom(as_batch(RAMP), tf.constant([0.0]), nearest=False)[0, ..., 0], RAMP, atol=1e-6)
    nearest = transforms.zoom(as_batch(RAMP), tf.constant([0.5]), nearest=True)[0, ..., 0].numpy()
    assert np.allclose(nearest, np.kron(RAMP[1:3, 1:3], np.ones((2, 2))))  # rounds 0.75 1.25 1.75 2.25 to 1 1 2 2


def test_random_zoom_and_rotation_are_those_of_their_draw():
    images = tf.random.stateless_uniform([200, 8, 8, 3], [1, 2])
    drawn = keys(200)
    for number in (0, 3):
        uniform = drawn.uniform(number)
        assert 0 <= float(tf.reduce_min(uniform)) < 0.1 < 0.9 < float(tf.reduce_max(uniform)) < 1
        assert np.array_equal(
            one({"random_zoom": 0.5}, images, drawn, number=number),
            transforms.zoom(images, 0.5 * uniform, nearest=False),
        )
        degrees = 30 * (2 * uniform - 1)
        assert np.array_equal(
            one({"random_rotate": 30.0}, images, drawn, number=number),
            transforms.rotate(images, degrees, nearest=False),
        )
        assert float(tf.reduce_min(degrees)) < -25
        assert float(tf.reduce_max(degrees)) > 25


@pytest.mark.parametrize("kind", ["random_horizontal_flip", "random_vertical_flip"])
def test_flips_come_with_their_probability(kind):
    images = tf.random.stateless_uniform([400, 3, 3, 3], [0, 0])
    mirror = images.numpy()[:, :, ::-1] if kind == "random_horizontal_flip" else images.numpy()[:, ::-1]
    flipped = one({kind: 0.25}, images, keys(400))
    changed = (flipped == mirror).all(axis=(1, 2, 3))
    assert (changed | (flipped == images.numpy()).all(axis=(1, 2, 3))).all()
    assert 70 <= changed.sum() <= 130  # 100 expected, standard deviation 8.7
    assert np.array_equal(one({kind: 0.0}, images, keys(400)), images)
    other_epoch = (one({kind: 0.25}, images, keys(400, epoch=1)) == mirror).all(axis=(1, 2, 3))
    other_step = (one({kind: 0.25}, images, keys(400), number=1) == mirror).all(axis=(1, 2, 3))
    assert not np.array_equal(changed, other_epoch)
    assert not np.array_equal(changed, other_step)


@pytest.mark.parametrize(
    "section",
    [{"resize": [5, 7]}, {"rotate": 30.0}, {"random_zoom": 0.9}, {"random_rotate": 180.0}, {"random_resized_crop": {}}],
)
def test_masks_get_no_values_that_they_did_not_have(section):
    mask = tf.cast(tf.random.stateless_uniform([4, 9, 9, 1], [0, 1], 1, 6, tf.int32) ** 2, tf.float32)
    turned = one(section, mask, keys(4), nearest=True)
    assert set(np.unique(turned)) <= {0, *np.unique(mask)}
    assert len(np.unique(turned)) > 2


SEED_EXAMPLE = [  # the example of rmldnn's pages: images keep their own sizes up to the last step
    {"normalize": {"mean": 0.5, "std": 0.5}},
    {"convert_color": "BGR2RGB"},
    {"random_horizontal_flip": 0.5},
    {"jitter_crop": 0.1},
    {"random_rotate": 20.0},
    {"resize": [16, 24]},
]


def steps_of(preprocessing: Preprocessing) -> tuple[list[str], ...]:
    return (
        [step.kind for step in preprocessing.decoding.steps],
        [step.kind for _, step in preprocessing.per_image],
        [step.kind for _, step in preprocessing.per_batch],
    )


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ([{"resize": [8, 8]}, {"rotate": 9.0}], (["resize"], [], ["rotate"])),
        (
            [{"resize": [8, 8]}, {"center_crop": [4, 4]}, {"resize": [2, 2]}],
            (["resize", "center_crop", "resize"], [], []),
        ),
        (SEED_EXAMPLE, ([], [Transform(**s).kind for s in SEED_EXAMPLE], [])),
        (
            [{"resize": [8, 8]}, {"rotate": 9.0}, {"jitter_crop": 0.1}, {"resize": [4, 4]}, {"grayscale": True}],
            (["resize"], ["rotate", "jitter_crop", "resize"], ["grayscale"]),
        ),
    ],
)
def test_steps_are_divided_by_where_they_run(sections, expected):
    steps = tuple(enumerate(Transform(**section) for section in sections))
    assert steps_of(split_steps(steps, DecodeOptions())) == expected


@pytest.mark.parametrize("preload", [False, True])
def test_images_of_different_sizes_one_at_a_time(tmp_path, preload):
    write_images(tmp_path / "x", {"a": 3}, size=(20, 24))
    write_images(tmp_path / "x", {"b": 3}, size=(41, 17))
    listing = sources.list_images(tmp_path / "x")
    config = Config.model_validate({"data": {"transforms": SEED_EXAMPLE}})
    task = classification_task(config, labels=True, augment=False)
    images = Images.open(listing, RankShare(), task.images, preload)
    batch = next(iter(pipeline.evaluation_batches(images, batch_size=6, seed=0, prepare=task.prepare)))
    for index, found in enumerate(batch["inputs"].numpy()):
        # Without the random steps: normalise, swap channels, resize, which Pillow does to a channel of floats alike.
        pixels = np.asarray(Image.open(listing.open(index)).convert("RGB"), np.float32) / 127.5 - 1
        channels = [Image.fromarray(pixels[..., 2 - c]).resize((16, 24), Image.Resampling.BILINEAR) for c in range(3)]
        assert np.allclose(found, np.stack(channels, axis=2), atol=1e-5)
    task = classification_task(config, labels=True, augment=True)
    images = Images.open(listing, RankShare(), task.images, preload)
    train = pipeline.train_batches(images, batch_size=6, seed=0, first_step=0, prepare=task.prepare)
    first, second = (batch["inputs"].numpy() for batch in train.take(2))
    assert first.shape == (6, 24, 16, 3)
    assert not np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))


def test_input_and_target_get_the_same_draws_and_their_own_steps(tmp_path):
    write_images(tmp_path / "x", {"a": 8}, size=(12, 12))
    config = Config.model_validate(
        {
            "data": {
                "transforms": [
                    {"jitter_crop": 0.5}, {"resize": [16, 16]}, {"random_horizontal_flip": 0.5},
                    {"random_vertical_flip": 0.5}, {"random_zoom": 0.5}, {"random_rotate": 90.0},
                ],
                "input_transforms": [{"normalize": {"mean": 0.5, "std": 0.5}}],
                "target_transforms": [{"center_crop": [8, 8]}, {"grayscale": True}],
            }
        }
    )  # fmt: skip
    listing = sources.list_images(tmp_path / "x")
    task = image_to_image_task(config, targets=True, augment=True)
    images = Images.open(listing, RankShare(), task.images, True)
    targets = Images.open(pair_by_name(listing, tmp_path / "x"), RankShare(), task.targets, False)
    batches = pipeline.train_batches(images, targets, batch_size=8, seed=0, first_step=0, prepare=task.prepare)
    for batch in batches.take(2):
        assert batch["inputs"].shape == (8, 16, 16, 3)
        assert batch["targets"].shape == (8, 8, 8, 1)
        middle = batch["inputs"].numpy()[:, 4:12, 4:12] * 0.5 + 0.5
        assert np.allclose(tf.image.rgb_to_grayscale(middle), batch["targets"], atol=1e-5)


def test_no_two_steps_share_their_draws():
    flip = {"random_horizontal_flip": 0.5}
    lists = {"transforms": [{"resize": [8, 8]}, flip], "input_transforms": [flip, flip], "target_transforms": [flip]}
    task = image_to_image_task(Config.model_validate({"data": lists}), targets=True, augment=True)
    assert [number for number, _ in task.images.per_batch] == [1, 2, 3]
    assert [number for number, _ in task.targets.per_batch] == [1, 4]


def test_masks_are_passed_by_what_changes_values(tmp_path):
    write_images(tmp_path / "x", {"a": 2}, size=(8, 8))
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
    (tmp_path / "y" / "a").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(values).save(tmp_path / "y" / "a" / f"{i:03}.png")
    sections = [{"resize": [8, 8]}, {"normalize": {"std": 0.003921568}}, {"rotate": 180.0}, {"grayscale": True}]
    config = Config.model_validate({"data": {"target_is_mask": True, "transforms": sections}})
    task = image_to_image_task(config, targets=True, augment=True, classes=3)
    listing = sources.list_images(tmp_path / "x")
    images = Images.open(listing, RankShare(), task.images, True)
    targets = Images.open(pair_by_name(listing, tmp_path / "y"), RankShare(), task.targets, True)
    batch = next(iter(pipeline.evaluation_batches(images, targets, batch_size=2, seed=0, prepare=task.prepare)))
    assert batch["targets"].dtype == tf.int32
    assert np.array_equal(batch["targets"], [values[::-1, ::-1]] * 2)
    assert float(tf.reduce_max(batch["inputs"])) > 100


def test_patches_are_cut_from_input_and_target_alike(tmp_path):
    write_images(tmp_path / "x", {"a": 4}, size=(32, 32))
    write_images(tmp_path / "y", {"a": 4}, size=(32, 32), seed=5)
    config = Config.model_validate(
        {"data": {"transforms": [{"resize": [32, 32]}, {"random_patches": {"number": 3, "size": 8}}]}}
    )
    listing = sources.list_images(tmp_path / "x")
    pairs = pair_by_name(listing, tmp_path / "y")

    def batch(separate: bool) -> dict[str, np.ndarray]:
        task = inpainting_task(config, separate=separate, augment=True)
        images = Images.open(listing, RankShare(), task.images, True)
        targets = Images.open(pairs, RankShare(), task.targets, True) if separate else None
        found = pipeline.evaluation_batches(images, targets, batch_size=4, seed=0, prepare=task.prepare)
        return {name: value.numpy() for name, value in next(iter(found)).items()}

    own, other = batch(separate=False), batch(separate=True)
    assert np.array_equal(own["mask"], other["mask"])
    assert np.array_equal(own["inputs"], other["inputs"])
    whole = np.stack([read_image(pairs.open(i), DecodeOptions()) for i in range(4)]) / np.float32(255)
    assert np.allclose(other["targets"], whole * other["mask"])
    assert not np.allclose(own["targets"], other["targets"])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_pixels_become_the_nearest_floats_to_their_255ths(jit_compile):
    pixels = np.arange(256, dtype=np.uint8)
    found = tf.function(transforms.to_float, autograph=False, jit_compile=jit_compile)(tf.constant(pixels))
    assert np.array_equal(found, pixels / np.float32(255))
    assert transforms.to_float(found) is found
    assert np.array_equal(transforms.to_float(tf.constant(pixels), is_label_map=True), pixels.astype(np.float32))
