"""The picture of what the network will be given: the same as training, odd images, and what it says."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_images
from PIL import Image
from previews import refuse, succeed, write

from tfinpaint.config.checks import check_command
from tfinpaint.config.loader import load_config
from tfinpaint.config.schema import Config
from tfinpaint.data import masks, pipeline
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.pairing import pair_by_name
from tfinpaint.data.preview_batch import spread
from tfinpaint.data.tasks import image_to_image_task, inpainting_task
from tfinpaint.data.transforms import Keys
from tfinpaint.report import figures

RESIZE = {"resize": [32, 32]}
MASKS = {
    "patches": {"random_patches": {"number": 2, "size": 8}},
    "patches of an area": {"random_patches": {"size": 5, "area": 0.3, "fill": "noise"}},
    "center": {"center": {"side": 0.5, "fill": "mean"}},
    "block": {"random_block": {"area": 0.25}},
    "region": {"random_region": {"area": [0.2, 0.3]}},
    "grid": {"grid": {"size": 8, "ratio": 0.75}},
}


@pytest.fixture
def notes() -> list[str]:
    """The notes below the pictures that were drawn."""
    return []


@pytest.fixture
def drawn(monkeypatch, notes) -> dict[str, np.ndarray]:
    """The columns of the picture that was last drawn, which is not drawn: that takes most of the time."""
    columns: dict[str, np.ndarray] = {}

    def grid(given, title, path, note):
        notes.append(note)
        assert title == "training images, epoch 1"
        columns.clear()
        columns.update(given)

    monkeypatch.setattr(figures, "draw_grid", grid)
    return columns


def checked(config: Path) -> Config:
    return check_command(load_config(config), "pretrain", 1)


def first_epoch(config: Config, separate: bool = False) -> dict[int, dict[str, np.ndarray]]:
    """What training is given in epoch 0: number of the example -> its inputs, targets and so on."""
    make = inpainting_task if config.mask else image_to_image_task
    task = make(config, **{"separate" if config.mask else "targets": separate}, augment=True)
    listing = sources.list_images(config.data.input_path)
    opened = [Images.open(listing, RankShare(), task.images, preload=True)]
    if separate:
        pairs = pair_by_name(listing, config.data.target_path)
        opened.append(Images.open(pairs, RankShare(), task.targets, preload=True))
    size = config.data.batch_size
    batches = pipeline.train_batches(
        *opened, batch_size=size, seed=config.seed, first_step=0,
        prepare=lambda batch: {**task.prepare(batch), "example": batch["examples"]},
    )  # fmt: skip
    found = {}
    for batch in batches.take(len(listing) // size).as_numpy_iterator():
        for row, example in enumerate(batch["example"].tolist()):
            found[example] = {name: values[row] for name, values in batch.items()}
    assert sorted(found) == list(range(len(listing)))
    return found


def mask_of(config: Config, examples: list[int]) -> np.ndarray:
    keys = Keys(config.seed, tf.constant(0, tf.int64), tf.constant(examples, tf.int64))
    return masks.draw_mask(config.mask, keys, height=32, width=32).numpy()


@pytest.mark.parametrize(
    "kind", ["grid", *(pytest.param(kind, marks=pytest.mark.stress) for kind in ("patches of an area", "center"))]
)
def test_the_picture_shows_what_training_is_given_in_epoch_0(capsys, drawn, tmp_path, images, kind):
    augmented = [RESIZE, {"random_horizontal_flip": 0.5}, {"random_rotate": 20.0}, MASKS[kind]]
    path = write(tmp_path, images, data__transforms=augmented, data__input_transforms=[{"convert_color": "RGB2BGR"}])
    succeed(capsys, path, "--images", 6)
    trained, chosen = first_epoch(checked(path)), [0, 4, 8, 12, 16, 20]
    assert list(drawn) == ["original", "mask", "input", "target"]
    for shown, name in (("original", "originals"), ("input", "inputs"), ("target", "targets"), ("mask", "mask")):
        np.testing.assert_allclose(drawn[shown], [trained[i][name] for i in chosen], atol=1e-6)
    assert np.array_equal(drawn["mask"], mask_of(checked(path), chosen))


@pytest.mark.parametrize(
    ("loss", "columns", "scored"),
    [
        ({}, 4, "BCE loss on the erased pixels and the black canvas around them"),
        pytest.param({"target": "image"}, 4, "BCE loss on the whole image", marks=pytest.mark.stress),
        pytest.param({"target": "masked"}, 4, "BCE loss on the erased pixels only", marks=pytest.mark.stress),
        (
            {"target": "image", "overlap": 2, "overlap_weight": 4.5},
            5,
            "BCE loss on the whole image; a border of 2 pixels around the hole has 4.5 times the weight",
        ),
        pytest.param(
            {"function": "L1", "target": "masked", "overlap": 1},
            5,
            "L1 loss on the erased pixels only; a border of 1 pixel around the hole has 10 times the weight",
            marks=pytest.mark.stress,
        ),
        ({"function": "MSE", "target": "masked", "normalize_patches": 8}, 4, "MSE loss on the erased pixels only"),
    ],
)
def test_the_columns_and_words_of_each_loss(capsys, drawn, tmp_path, images, loss, columns, scored):
    path = write(tmp_path, images, data__transforms=[RESIZE, MASKS["center"]], loss={"function": "BCE"} | loss)
    lines = succeed(capsys, path)
    assert list(drawn) == ["original", "mask", "input", "target", "weight"][:columns]
    assert lines[-1] == scored
    trained = first_epoch(checked(path))
    np.testing.assert_allclose(drawn["target"], [trained[i]["targets"] for i in range(0, 24, 4)], atol=1e-6)
    if columns == 5:
        assert np.array_equal(drawn["weight"], [trained[i]["weights"] for i in range(0, 24, 4)])


def test_notes_explain_what_looks_like_a_mistake(capsys, drawn, notes, tmp_path, images):
    grid = {"grid": {"size": 8, "ratio": [0, 0.5]}}
    succeed(capsys, write(tmp_path, images, data__transforms=[RESIZE, grid]), "--images", 12)
    whole = sum(not mask.any() for mask in drawn["mask"])
    assert 1 < whole < 12
    assert notes[-1].startswith(f"{whole} rows have no hole. This is meant: the mask leaves some training images whole")
    loss = {"function": "MSE", "target": "masked", "normalize_patches": 8, "overlap": 2}
    succeed(capsys, write(tmp_path, images, data__transforms=[RESIZE, MASKS["center"]], loss=loss))
    assert notes[-1] == (
        "The target is normalised in cells of 8 x 8 pixels (loss.normalize_patches), so that it is no photo. "
        "Weight: how much a pixel counts in the loss."
    )
    succeed(capsys, write(tmp_path, images, data__transforms=[RESIZE, MASKS["center"]]))
    assert notes[-1] == ""


@pytest.mark.parametrize(
    "kind", ["patches", *(pytest.param(kind, marks=pytest.mark.stress) for kind in ("block", "region"))]
)
def test_the_erased_shares_are_those_of_the_masks(capsys, drawn, tmp_path, images, kind):
    path = write(tmp_path, images, data__transforms=[RESIZE, MASKS[kind]])
    lines = succeed(capsys, path, "--images", 1)
    shares = 100 * mask_of(checked(path), list(range(24))).mean(axis=(1, 2, 3))
    assert shares.min() < shares.max()
    least, mean, most = (f"{share:.1f}" for share in (shares.min(), shares.mean(), shares.max()))
    name = next(iter(MASKS[kind]))
    assert lines == [
        f"{images}/training: 24 images",
        "Input of the network: 32 x 32 pixels, 3 channels",
        f"Mask {name}: erases {mean} % of an image on average, {least} to {most} % (24 masks drawn)",
        "BCE loss on the erased pixels and the black canvas around them",
    ]


def test_a_mask_that_always_erases_as_much_says_so_once(capsys, drawn, tmp_path, images):
    for kind, share in (("center", "25.0"), ("grid", "75.0")):
        lines = succeed(capsys, write(tmp_path, images, data__transforms=[RESIZE, MASKS[kind]]))
        assert lines[2] == f"Mask {kind}: erases {share} % of each image"


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        (10, 1, [0]), (10, 2, [0, 9]), (10, 3, [0, 4, 8]), (10, 6, [0, 1, 2, 3, 4, 5]), (11, 6, [0, 2, 4, 6, 8, 10]),
        (10, 10, list(range(10))), (3, 6, [0, 1, 2]), (1, 6, [0]), (2, 2, [0, 1]), (10**9, 3, [0, 499999999, 999999998]),
    ],
)  # fmt: skip
def test_images_are_spread_over_the_folder(total, count, expected):
    assert list(spread(total, count)) == expected


def write_odd_images(folder: Path) -> dict[str, int]:
    """Images of odd kinds and the value of their pixels, all of one grey; the first letter orders them."""
    folder.mkdir(parents=True)
    alpha = Image.new("RGBA", (40, 30), (60, 60, 60, 0))
    alpha.save(folder / "a_alpha.png")
    Image.fromarray(np.full((30, 40), 70 * 257, np.uint16)).save(folder / "b_deep.png")
    Image.new("CMYK", (40, 30), (0, 0, 0, 255 - 80)).save(folder / "c_cmyk.jpg", quality=100)
    Image.new("RGB", (1, 1), (90, 90, 90)).save(folder / "d_dot.png")
    Image.new("RGB", (2400, 1600), (100, 100, 100)).save(folder / "e_large.jpg")
    Image.new("L", (30, 90), 110).save(folder / "f_grey_portrait.png")
    Image.new("P", (40, 30), 0).save(folder / "g_palette.gif")
    turned = Image.Exif()
    turned[0x0112] = 6  # stored a quarter to the left: the left half as stored is the upper one as displayed
    halves = np.repeat(np.array([[200, 50]], np.uint8), 32, axis=1)
    Image.fromarray(np.tile(halves, (48, 1))).save(folder / "h_turned.png", exif=turned)
    return {"a": 60, "b": 70, "c": 80, "d": 90, "e": 100, "f": 110, "g": 0}


def test_odd_images_are_shown_as_training_reads_them(capsys, drawn, tmp_path):
    values = write_odd_images(tmp_path / "data" / "training")
    path = write(tmp_path, tmp_path / "data", data__batch_size=8)
    assert succeed(capsys, path, "--images", 9)[0] == f"{tmp_path}/data/training: 8 images"
    shown = 255 * drawn["original"]
    assert shown.shape == (8, 32, 32, 3)
    for image, value in zip(shown[:7], values.values(), strict=True):
        assert np.abs(image - value).max() <= 2  # JPEG
    assert np.all(shown[7, :15] == 200)
    assert np.all(shown[7, 17:] == 50)
    trained = first_epoch(checked(path))
    np.testing.assert_allclose(drawn["input"], [trained[i]["inputs"] for i in range(8)], atol=1e-6)


def test_bad_images_are_named_and_left_out_up_to_the_limit(capsys, drawn, tmp_path, images):
    folder = images / "training" / "cold"
    whole = (folder / "003.png").read_bytes()
    (folder / "000.png").write_text("not an image")
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    (folder / "004.png").write_bytes(b"")
    path = write(tmp_path, images)
    error = refuse(capsys, path, "--images", 24, "--output", tmp_path / "out.png", lines=4)
    assert "error: 3 of the images to show are bad, data.max_bad_images allows 0; fix or delete them:\n" in error
    for name, reason in (("000", "not an image: text"), ("003", "truncated: "), ("004", "empty: 0 bytes")):
        assert any(f"{folder}/{name}.png: " in line and reason in line for line in error.splitlines())
    assert "allows 2" in refuse(capsys, path, "--images", 24, "--set", "data.max_bad_images=2", lines=4)
    assert not drawn
    lines = succeed(capsys, path, "--images", 24, "--set", "data.max_bad_images=3")
    assert [line for line in lines if line.startswith("Excluding")] == [
        f"Excluding bad image {folder}/000.png: not an image: text",
        next(line for line in lines if "003.png" in line and "truncated" in line),
        f"Excluding bad image {folder}/004.png: empty: 0 bytes",
    ]
    for name in ("000", "003", "004"):
        (folder / f"{name}.png").unlink()
    shown = drawn["input"].copy()
    assert len(shown) == 21
    succeed(capsys, path, "--images", 24)  # the good ones are numbered, and so masked, as if the bad were not there
    assert np.array_equal(shown, drawn["input"])


def test_only_the_images_to_show_are_read(capsys, drawn, tmp_path, images):
    for name in ("001", "002", "003", "005"):
        (images / "training" / "cold" / f"{name}.png").write_text("not an image")
    lines = succeed(capsys, write(tmp_path, images), "--images", 6)
    assert not [line for line in lines if line.startswith("Excluding")]
    assert len(drawn["input"]) == 6


def test_a_bad_image_gives_way_to_others(capsys, drawn, tmp_path, images):
    (images / "training" / "cold" / "000.png").write_text("not an image")
    path = write(tmp_path, images, data__max_bad_images=1)
    lines = succeed(capsys, path, "--images", 6)
    assert [line for line in lines if line.startswith("Excluding")] == [
        f"Excluding bad image {images}/training/cold/000.png: not an image: text"
    ]
    assert len(drawn["input"]) == 6
    for image in (images / "training").rglob("*.png"):
        image.write_text("not an image")
    path = write(tmp_path, images, data__max_bad_images=24)
    assert f"{images}/training: no readable image is left" in refuse(capsys, path)


def test_images_and_their_targets_are_shown_side_by_side(capsys, drawn, tmp_path, images):
    write_images(tmp_path / "targets", {"cold": 13, "warm": 11}, seed=1)
    steps = {"data__target_path": str(tmp_path / "targets"), "data__transforms": [RESIZE, {"random_rotate": 30.0}]}
    path = write(tmp_path, images, **steps, data__target_transforms=[{"random_horizontal_flip": 0.5}])
    lines = succeed(capsys, path)
    assert list(drawn) == ["input", "target"]
    assert lines == [
        f"{images}/training: 24 images with targets of the same names in {tmp_path}/targets",
        "Input of the network: 32 x 32 pixels, 3 channels",
        "BCE loss on the whole image",
    ]
    trained = first_epoch(checked(path), separate=True)
    for shown, name in (("input", "inputs"), ("target", "targets")):
        np.testing.assert_allclose(drawn[shown], [trained[i][name] for i in range(0, 24, 4)], atol=1e-6)
    bad = tmp_path / "targets" / "cold" / "004.png"
    bad.write_text("not an image")
    assert f"{bad}: not an image" in refuse(capsys, path, lines=2)
    bad.unlink()
    assert "no image of the same name for 1 of" in refuse(capsys, path, lines=2)


def test_targets_that_are_masks_and_targets_beside_a_mask(capsys, drawn, tmp_path, images):
    write_images(tmp_path / "targets", {"cold": 13, "warm": 11}, seed=1)
    for path in (tmp_path / "targets").rglob("*.png"):
        Image.fromarray(np.full((24, 20), 3, np.uint8)).save(path)
    targets = {"data__target_path": str(tmp_path / "targets"), "data__target_is_mask": True}
    succeed(capsys, write(tmp_path, images, **targets, data__transforms=[RESIZE]))
    assert drawn["target"].shape == (6, 32, 32)
    assert drawn["target"].dtype == np.int32
    assert np.all(drawn["target"] == 3)
    del targets["data__target_is_mask"]
    succeed(capsys, write(tmp_path, images, **targets))
    assert list(drawn) == ["original", "mask", "input", "target"]
    np.testing.assert_allclose(drawn["target"], np.repeat(drawn["mask"], 3, axis=3) * 3 / 255, atol=1e-6)


def test_grey_images_have_one_channel(capsys, drawn, tmp_path, images):
    lines = succeed(capsys, write(tmp_path, images, data__grayscale=True))
    assert lines[1] == "Input of the network: 32 x 32 pixels, 1 channel"
    assert drawn["original"].shape == drawn["target"].shape == (6, 32, 32, 1)
