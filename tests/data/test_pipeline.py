"""The chains: the same global batches for any number of ranks, every example counted, resume at any step."""

import errno
import hashlib
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, write_images

from tfinpaint.config.schema import Config
from tfinpaint.config.sections import Data
from tfinpaint.data import pipeline
from tfinpaint.data.examples import Images, Preprocessing, RankShare, load_images
from tfinpaint.data.failures import Failures
from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.pairing import pair_by_name
from tfinpaint.data.tasks import classification_task, inpainting_task

CONFIG = Config.model_validate(
    {
        "data": {
            "transforms": [
                {"resize": [32, 32]}, {"random_horizontal_flip": 0.5}, {"random_patches": {"number": 2, "size": 8}},
            ]
        }
    }
)  # fmt: skip
PREPROCESSING = Preprocessing(DecodeOptions(tuple(CONFIG.data.transforms[:1])))


@pytest.fixture
def listing(tmp_path):
    return sources.list_class_folders(write_images(tmp_path / "x", {"a": 12, "b": 11}))


def examples(listing, shard, *, batch_size=8, first_step=0, steps=6, preload=True, seed=0):
    """(epoch, example indices) of each batch."""
    images = Images.open(listing, shard, PREPROCESSING, preload)
    batches = pipeline.train_batches(
        images, batch_size=batch_size, seed=seed, first_step=first_step, prepare=lambda batch: batch
    )
    return [(int(batch["epoch"]), batch["examples"].numpy().tolist()) for batch in batches.take(steps)]


def test_global_batches_are_the_same_for_any_number_of_ranks(listing):
    whole = examples(listing, RankShare())
    for count in (2, 4):
        parts = [examples(listing, RankShare(rank, count)) for rank in range(count)]
        for step, (epoch, ids) in enumerate(whole):
            assert all(part[step][0] == epoch for part in parts)
            assert sorted(ids) == sorted(i for part in parts for i in part[step][1])
            assert all(i % count == rank for rank, part in enumerate(parts) for i in part[step][1])


def test_a_pass_sees_no_example_twice_and_passes_differ(listing):
    steps = pipeline.steps_per_pass(len(listing), 8)
    assert steps == 2  # 23 images, batches of 8
    batches = examples(listing, RankShare(), steps=2 * steps)
    first, second = ([i for _, ids in batches[at : at + steps] for i in ids] for at in (0, steps))
    assert [epoch for epoch, _ in batches] == [0, 0, 1, 1]
    assert len(set(first)) == len(set(second)) == 16
    assert first != second


def test_the_order_of_a_pass_is_the_golden_one():
    rows = pipeline.pass_order(19, 4, RankShare(1, 2), seed=5, epoch=tf.constant(3, tf.int64))
    assert rows.dtype == tf.int64
    assert rows.numpy().tolist() == [[9, 11], [13, 15], [17, 7], [1, 3]]
    # Of the first release, whose runs are resumed: all shards of these cases, as little-endian int64.
    digest = hashlib.sha256()
    for examples, ranks, seed, epoch in itertools.product((8, 23, 1000, 4097), (1, 2, 8), (0, 7), (0, 2**33)):
        for rank in range(ranks):
            rows = pipeline.pass_order(examples, 8, RankShare(rank, ranks), seed, tf.constant(epoch, tf.int64))
            digest.update(rows.numpy().tobytes())
    assert digest.hexdigest() == "3d110c9cf3940ef6802c7b976033c06016c7fc444a29fd8f6824a41d5822fb34"


def test_over_many_passes_every_example_has_its_turn(listing):
    seen = {i for _, ids in examples(listing, RankShare(), steps=60) for i in ids}
    assert seen == set(range(23))


def test_starting_at_a_step_goes_on_with_the_batch_that_would_have_come(listing):
    whole = examples(listing, RankShare(1, 2), steps=7)
    for start in (1, 2, 5):
        assert examples(listing, RankShare(1, 2), first_step=start, steps=7 - start) == whole[start:]


def test_reading_files_on_the_fly_gives_the_same_pixels_as_preloading(listing):
    def batches(preload):
        task = inpainting_task(CONFIG, separate=False, augment=True)
        images = Images.open(listing, RankShare(1, 2), task.images, preload)
        return list(pipeline.train_batches(images, batch_size=8, seed=3, first_step=1, prepare=task.prepare).take(3))

    for kept, read in zip(batches(True), batches(False), strict=True):
        assert sorted(kept) == ["examples", "inputs", "mask", "originals", "targets"]
        for key in kept:
            assert np.array_equal(kept[key], read[key])
        assert kept["inputs"].dtype == tf.float32
        assert float(tf.reduce_max(kept["inputs"])) <= 1


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_batches_are_the_same_in_however_many_parts_they_are_read(listing, monkeypatch, threads):
    monkeypatch.setattr(pipeline, "_threads", lambda: threads)
    sizes, read_all = [], Failures.read_all

    def counting(failures, sides, indices):
        examples, (pixels,) = read_all(failures, sides, indices)
        sizes.append(len(examples))
        assert pixels.ctypes.data % 64 == 0 or not len(examples)  # or TensorFlow would copy them
        return examples, [pixels]

    monkeypatch.setattr(Failures, "read_all", counting)

    def batches(preload):
        task = inpainting_task(CONFIG, separate=False, augment=True)
        images = Images.open(listing, RankShare(), task.images, preload)
        given = {"batch_size": 8, "seed": 3, "prepare": task.prepare}
        yield from pipeline.train_batches(images, **given, first_step=1).take(3)
        sizes.clear()
        yield from pipeline.evaluation_batches(images, **given)

    for kept, read in zip(batches(True), batches(False), strict=True):
        assert all(np.array_equal(kept[key], read[key]) for key in kept)
    # Python was called for each part, and not for each image; the last batch has 7 images.
    assert sorted(sizes) == {1: [7, 8, 8], 3: [2, 2, 2, 2, 3, 3, 3, 3, 3], 16: [0] + [1] * 23}[threads]


@pytest.mark.parametrize("first", [{"resize": [48, 48]}, {"center_crop": [16, 16]}])
def test_steps_for_single_images_that_the_decoder_has_given_one_size(listing, first):
    def inputs(*between: dict[str, float], preload: bool) -> np.ndarray:
        config = Config.model_validate({"data": {"transforms": [first, *between, {"resize": [32, 32]}]}})
        task = classification_task(config, labels=True, augment=True)
        images = Images.open(listing, RankShare(), task.images, preload)
        batches = pipeline.train_batches(images, batch_size=8, seed=0, first_step=0, prepare=task.prepare)
        return next(iter(batches))["inputs"].numpy()

    read, preloaded = (inputs({"jitter_crop": 0.3}, preload=preload) for preload in (False, True))
    assert read.shape == (8, 32, 32, 3)
    assert np.array_equal(read, preloaded)
    assert np.abs(read - inputs(preload=False)).mean() > 0.01


def test_preloading_keeps_a_ranks_share_only(listing):
    images = Images.open(listing, RankShare(1, 4), PREPROCESSING, True)
    assert images.pixels.shape == (6, 32, 32, 3)  # examples 1, 5, 9, 13, 17, 21
    assert images.pixels.dtype == tf.uint8


def test_preloaded_pixels_are_in_memory_once(listing, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "tfinpaint.data.examples.load_images", lambda *given: decoded.append(load_images(*given)) or decoded[0]
    )
    images = Images.open(listing, RankShare(), PREPROCESSING, True)
    decoded[0][3] = 77
    assert np.array_equal(images.pixels[3], np.full((32, 32, 3), 77))  # the tensor has the memory of the array
    batches = pipeline.train_batches(images, batch_size=8, seed=0, first_step=0, prepare=lambda batch: batch)
    assert batches.options().experimental_optimization.apply_default_optimizations is False  # which would copy


@pytest.mark.stress
def test_preloading_takes_the_bytes_of_the_pixels():
    program = [sys.executable, ROOT / "scripts/bench/memory.py", "--images", "6000", "--measure", "preload"]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    taken = json.loads(done.stdout.splitlines()[-1])["memory"]
    assert taken <= 1.1 * 6000 * 128 * 128 * 3 / 2**30


@pytest.mark.parametrize("count", [1, 4])
def test_evaluation_sees_every_example_once_and_draws_the_same_patches_each_time(listing, count):
    task = inpainting_task(CONFIG, separate=False, augment=False)

    def masks():
        seen = {}
        for rank in range(count):
            images = Images.open(listing, RankShare(rank, count), task.images, True)
            ids = iter(images.share.indices(len(listing)))
            for batch in pipeline.evaluation_batches(images, batch_size=8, seed=0, prepare=task.prepare):
                seen |= {next(ids): mask for mask in batch["mask"].numpy()}
        return seen

    first, second = masks(), masks()
    assert sorted(first) == list(range(23))
    assert all(np.array_equal(first[i], second[i]) for i in first)


def test_labels_go_with_their_images(listing):
    task = classification_task(Config(data=Data(transforms=CONFIG.data.transforms[:1])), labels=True, augment=True)
    images = Images.open(listing, RankShare(), task.images, True)
    for batch in pipeline.train_batches(images, batch_size=8, seed=0, first_step=0, prepare=task.prepare).take(3):
        red, blue = batch["inputs"].numpy().mean(axis=(1, 2))[:, [0, 2]].T
        assert np.array_equal(blue > red, batch["targets"].numpy() == 1)  # class b is blue


def broken(listing, *names):
    """The same listing, in which some files were cut."""
    for name in names:
        path = listing.root / name
        path.write_bytes(path.read_bytes()[:200])
    return listing


def labelled(listing, shard, failures, steps, transforms=()):
    """(example, label, inputs) of every image of some training batches, with random steps."""
    random = [*transforms, {"resize": [32, 32]}, {"random_horizontal_flip": 0.5}, {"random_rotate": 30.0}]
    config = Config.model_validate({"data": {"transforms": random}})
    task = classification_task(config, labels=True, augment=True)
    images = Images.open(listing, shard, task.images, False)
    batches = pipeline.train_batches(
        images, batch_size=8, seed=0, first_step=0, prepare=task.prepare, failures=failures
    ).take(steps)
    rows = [zip(b["examples"].numpy(), b["targets"].numpy(), b["inputs"].numpy(), strict=True) for b in batches]
    return [(int(example), int(label), image) for row in rows for example, label, image in row]


@pytest.mark.parametrize(("count", "threads", "transforms"), [(1, 1, ()), (2, 3, ()), (1, 3, [{"jitter_crop": 0.3}])])
def test_an_image_that_goes_bad_gives_its_place_to_the_next_of_the_share(
    listing, monkeypatch, count, threads, transforms
):
    monkeypatch.setattr(pipeline, "_threads", lambda: threads)
    shard = RankShare(0, count)
    before = labelled(listing, shard, None, 6, transforms)
    whole = {(example, step // (16 // count)): image for step, (example, _, image) in enumerate(before)}
    # Examples 22, and 0 which comes after it; of two ranks, 22 and 0 and 2 are neighbours in the share of rank 0.
    bad = {22: 1, 0: 1} if count == 1 else {22: 2, 0: 2}
    broken(listing, "b/010.png", "a/000.png")
    failures = Failures(limit=5, before=3)
    after = labelled(listing, shard, failures, 6, transforms)
    assert [example for example, *_ in after] == [bad.get(example, example) for example, *_ in before]
    assert sorted(failures.found) == [0, 22]
    assert failures.found[22][0] == f"{listing.root}/b/010.png"
    for step, (example, label, image) in enumerate(after):
        assert label == (example >= 12)
        if (example, step // (16 // count)) in whole:  # random steps are those of the example that is there
            assert np.array_equal(image, whole[example, step // (16 // count)])


def test_more_bad_images_than_allowed_end_the_batches(listing):
    broken(listing, "a/001.png", "a/002.png")
    failures = Failures(limit=4, before=3)
    with pytest.raises(tf.errors.OpError):
        labelled(listing, RankShare(), failures, 12)
    assert failures.exceed_limit
    assert sorted(failures.found) == [1, 2]
    assert "(bad images: 3 before, 2 now; data.max_bad_images 4)" in failures.message()


def test_a_share_without_a_readable_image_ends_the_batches(listing):
    broken(listing, *listing.paths)
    failures = Failures(limit=100)
    with pytest.raises(tf.errors.OpError):
        labelled(listing, RankShare(), failures, 1)
    assert len(failures.found) == 23


def test_evaluation_replaces_no_image(listing):
    task = inpainting_task(CONFIG, separate=False, augment=False)
    images = Images.open(broken(listing, "a/001.png"), RankShare(), task.images, False)
    failures = Failures()
    with pytest.raises(tf.errors.OpError):
        list(pipeline.evaluation_batches(images, batch_size=8, seed=0, prepare=task.prepare, failures=failures))
    assert failures.message().startswith(
        f"{listing.root}/a/001.png: became unreadable after the initial check: truncated"
    )


def test_a_target_that_goes_bad_takes_its_input_with_it(listing, tmp_path):
    targets = pair_by_name(listing, write_images(tmp_path / "y", {"a": 12, "b": 11}))
    broken(targets, "b/003.png")
    sides = [Images.open(files, RankShare(), PREPROCESSING, False) for files in (listing, targets)]
    failures = Failures(limit=1)
    batches = pipeline.train_batches(
        *sides, batch_size=8, seed=0, first_step=0, prepare=lambda batch: batch, failures=failures
    )
    for batch in batches.take(6):
        assert 15 not in batch["examples"]
        assert np.array_equal(batch["images"], batch["targets"])  # both have the same seed
    assert next(iter(failures.found.values()))[0] == f"{targets.root}/b/003.png"


def test_want_of_descriptors_is_no_fault_of_an_image(listing, monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("tfinpaint.data.examples.read_image", fail)
    failures = Failures(limit=100)
    with pytest.raises(tf.errors.OpError, match="Too many open files"):
        labelled(listing, RankShare(), failures, 1)
    assert not failures.found
