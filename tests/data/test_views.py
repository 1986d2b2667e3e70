"""Batches of two views: the first is the one of a single view, the second is independent, for any number of ranks."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_images

from tfinpaint.config.schema import Config
from tfinpaint.data import pipeline, rng
from tfinpaint.data.examples import Images, RankShare
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.tasks import pretraining_task

STEPS = [
    {"random_resized_crop": {"scale": [0.3, 1.0]}},
    {"random_horizontal_flip": 0.5},
    {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "probability": 0.8}},
    {"random_grayscale": 0.2},
]
BLUR = {"gaussian_blur": {"probability": 0.5}}
GRID = {"grid": {"size": 8, "ratio": [0, 0.25, 0.5], "fill": "noise"}}
WHOLE = RankShare()
FLIP = {"random_horizontal_flip": 0.5}
# Steps on batches; steps on single images, whose sizes differ.
CASES = {
    "batches": [{"resize": [32, 32]}, *STEPS, BLUR, GRID],
    "single images": [*STEPS[:2], {"jitter_crop": 0.3}, {"resize": [32, 32]}, FLIP, GRID],
    "all on single images": [*STEPS, {"jitter_crop": 0.3}, {"resize": [32, 32]}, BLUR, FLIP, GRID],
}


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, {"a": 12}, size=(40, 36))
    write_images(folder, {"b": 11}, size=(36, 50))
    return sources.list_class_folders(folder)


@pytest.fixture(scope="module")
def two_views(listing):
    """Five batches of two views, with steps on batches."""
    return batches(listing, "batches", views=2, steps=5)


def batches(listing, case, *, views, share=WHOLE, preload=True, steps=3, first_step=0):
    loss = {"function": "MSE", "target": "masked"}
    config = Config.model_validate({"data": {"transforms": CASES[case]}, "loss": loss, "seed": 3})
    task = pretraining_task(config, separate=False, augment=True)
    images = Images.open(listing, share, task.images, preload)
    found = pipeline.train_batches(
        images, batch_size=8, seed=3, first_step=first_step, prepare=task.prepare, views=views
    )
    return [{name: tensor.numpy() for name, tensor in batch.items()} for batch in found.take(steps)]


@pytest.mark.parametrize(
    ("case", "preload"),
    [
        ("batches", True),
        ("batches", False),
        ("single images", False),
        *(
            pytest.param(*case, marks=pytest.mark.stress)
            for case in [("all on single images", False), ("all on single images", True)]
        ),
    ],
)
def test_the_first_view_is_the_single_one_to_the_byte_and_the_second_another(listing, two_views, case, preload):
    single = batches(listing, case, views=1, preload=preload)
    known = (case, preload) == ("batches", True)
    both = two_views[:3] if known else batches(listing, case, views=2, preload=preload)
    for one, two in zip(single, both, strict=True):
        assert one.keys() == two.keys() == {"inputs", "targets", "originals", "mask", "weights", "examples"}
        for name, values in one.items():
            assert len(two[name]) == 16
            assert two[name][:8].tobytes() == values.tobytes(), name
        assert np.array_equal(two["examples"][8:], one["examples"])
        differs = (two["originals"][:8] != two["originals"][8:]).any(axis=(1, 2, 3))
        assert differs.all()
        # Each view is erased by a mask of its own, and its target is the same view before it was erased.
        assert (two["mask"][:8] != two["mask"][8:]).any(axis=(1, 2, 3)).sum() >= 4
        visible = np.broadcast_to(two["mask"] == 0, two["inputs"].shape)
        assert np.array_equal(two["inputs"][visible], two["targets"][visible])


def test_the_second_of_complementary_views_loses_what_the_first_one_keeps(listing, monkeypatch):
    steps = [{"resize": [32, 32]}, {"random_horizontal_flip": 0.5}]
    grid = {"size": 8, "ratio": [0.25, 0.5]}
    monkeypatch.setitem(CASES, "independent", [*steps, {"grid": grid}])
    monkeypatch.setitem(CASES, "complementary", [*steps, {"grid": {**grid, "complementary": True}}])
    independent, complementary = (batches(listing, case, views=2) for case in ("independent", "complementary"))
    for before, batch in zip(independent, complementary, strict=True):
        mask = batch["mask"]
        assert np.array_equal(mask[:8], before["mask"][:8])
        assert np.array_equal(mask[8:], 1 - mask[:8])
        assert set(mask[8:].mean(axis=(1, 2, 3))) == {0.5, 0.75}
        hidden = np.broadcast_to(mask[8:] == 1, batch["inputs"][8:].shape)
        assert np.all(batch["inputs"][8:][hidden] == 0)


@pytest.mark.parametrize("case", ["batches", pytest.param("all on single images", marks=pytest.mark.stress)])
def test_two_ranks_have_the_views_of_one(listing, two_views, case):
    whole = two_views[:3] if case == "batches" else batches(listing, case, views=2)
    parts = [batches(listing, case, views=2, share=RankShare(rank, 2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        for name, values in batch.items():
            for view in range(2):
                mine = values[8 * view :][:8]
                for rank in range(2):
                    theirs = parts[rank][step][name][4 * view :][:4]
                    assert np.array_equal(theirs, mine[rank::2]), (name, view, rank)


def test_a_resumed_run_goes_on_at_its_step(listing, two_views):
    later = batches(listing, "batches", views=2, first_step=3, steps=2)
    for ours, theirs in zip(later, two_views[3:], strict=True):
        for name, values in ours.items():
            assert np.array_equal(values, theirs[name])


def test_keys_of_views_differ_from_all_examples_and_lead_back_to_them():
    examples = tf.constant([0, 5, 10**9], tf.int64)
    keys = rng.view_keys(examples, 2)
    assert np.array_equal(keys[:3], examples)
    assert keys.numpy().min(initial=2**62, where=np.arange(6) >= 3) > 10**12
    assert np.array_equal(rng.examples_of(keys), np.tile(examples, 2))
    assert np.array_equal(rng.view_keys(examples, 1), examples)


def test_views_are_independent():
    # The correlation of 10,000 pairs of uniform numbers has a standard deviation of 0.01.
    bits = rng.random_bits(0, rng.TRANSFORM, 0, rng.view_keys(tf.range(10_000, dtype=tf.int64), 2), 1, 0)
    first, second = np.split(rng.random_uniform(bits).numpy(), 2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert abs(second.mean() - 0.5) < 0.02
