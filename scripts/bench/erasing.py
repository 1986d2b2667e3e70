"""Images per second from preloaded uint8 images to batches of (input, target, mask), beside other ways to do it.

usage: python scripts/bench/erasing.py [--size 128] [--patches 16] [--batch 64] [--seconds 0.5] [--rounds 7]
           [--peers PYTHON] [--sides NAME...]

Every side works on one processor core, in a process of its own, and takes batches of a random order; its time is that
of the processor, which other work on the machine disturbs less. It makes float32 inputs without the pixels of
`--patches` random squares of an eighth of the size, and float32 targets, the whole images.
tfinpaint and the NumPy loop make the mask too. The peers: loops of NumPy and of Pillow, `keras.layers.RandomErasing` as
often as there are patches, a loop in PyTorch as in torchvision's RandomErasing, and Albumentations' CoarseDropout. The
limit is NumPy's conversion of the same bytes to float32. PYTHON is the interpreter of an environment with the last two
(`pip install torch numpy albumentations opencv-python-headless`); without it they are left out. Prints the median and
range of each side and of the ratios of neighbouring turns, then all values as one line of JSON.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from turns import Aim, print_comparison, serve_turns, take_turns

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

IMAGES = 2048
OWN = ("tfinpaint", "NumPy loop", "Pillow loop", "Keras RandomErasing", "conversion alone")
PEERS = ("PyTorch loop", "Albumentations")
Turn = Callable[[Any], Any]  # takes the indices of a batch


def tfinpaint(pixels: np.ndarray, batch: int, patches: int, square: int) -> Turn:
    """Return the project's pipeline, with a thread pool of one thread."""
    import tfinpaint  # noqa: F401 -- before TensorFlow, whose settings it prepares

    # isort: split
    import tensorflow as tf
    from PIL import Image

    from tfinpaint.config.schema import Config
    from tfinpaint.data import pipeline
    from tfinpaint.data.examples import Images, RankShare
    from tfinpaint.data.listing import listing
    from tfinpaint.data.tasks import inpainting_task

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    size = pixels.shape[1]
    steps = [{"resize": [size, size]}, {"random_patches": {"number": patches, "size": square}}]
    config = Config.model_validate({"loss": {"target": "image"}, "data": {"transforms": steps}})
    task = inpainting_task(config, separate=False, augment=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(f"{folder}/{number:04}.png", compress_level=0)
        images = Images.open(listing.list_images(Path(folder)), RankShare(), task.images, preload=True)
    batches = pipeline.train_batches(
        images, batch_size=batch, seed=0, first_step=0, prepare=task.prepare, leave_out=task.not_trained_on
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    data = batches.with_options(options)
    iterator = iter(data)

    def make(indices: np.ndarray | None) -> Any:
        nonlocal iterator
        if indices is None:  # a turn begins: forget what was read ahead while the others had theirs
            iterator = iter(data)
        return next(iterator)

    return make


def numpy_loop(pixels: np.ndarray, batch: int, patches: int, square: int) -> Turn:
    """Return a plain loop that erases slices."""
    generator, size = np.random.default_rng(0), pixels.shape[1]

    def make(indices: np.ndarray) -> tuple[np.ndarray, ...]:
        targets = pixels[indices].astype(np.float32)
        targets /= 255
        inputs, masks = targets.copy(), np.zeros([batch, size, size, 1], np.float32)
        corners = generator.integers(0, size - square + 1, (batch, patches, 2))
        for image, mask, of_image in zip(inputs, masks, corners, strict=True):
            for top, left in of_image:
                image[top : top + square, left : left + square] = 0
                mask[top : top + square, left : left + square] = 1
        return inputs, targets, masks

    return make


def pillow_loop(pixels: np.ndarray, batch: int, patches: int, square: int) -> Turn:
    """Return a loop that pastes black squares into Pillow images."""
    from PIL import Image

    generator, size = np.random.default_rng(0), pixels.shape[1]

    def make(indices: np.ndarray) -> tuple[np.ndarray, ...]:
        inputs, targets = (np.empty([batch, size, size, 3], np.float32) for _ in range(2))
        corners = generator.integers(0, size - square + 1, (batch, patches, 2)).tolist()
        for place, index in enumerate(indices):
            image = Image.fromarray(pixels[index])
            targets[place] = np.asarray(image, np.float32) / 255
            for top, left in corners[place]:
                image.paste(0, (left, top, left + square, top + square))
            inputs[place] = np.asarray(image, np.float32) / 255
        return inputs, targets

    return make


def keras_layers(pixels: np.ndarray, batch: int, patches: int, square: int) -> Turn:
    """Return layers of Keras, one for each patch, compiled into one graph."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    share = (square / pixels.shape[1]) ** 2
    erase = [
        keras.layers.RandomErasing(factor=1.0, scale=(share, share), fill_value=0.0, value_range=(0, 1), seed=seed)
        for seed in range(patches)
    ]
    held = tf.constant(pixels)

    @tf.function(autograph=False)
    def make(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        targets = tf.cast(tf.gather(held, indices), tf.float32) / 255
        inputs = targets
        for layer in erase:
            inputs = layer(inputs, training=True)
        return inputs, targets

    return lambda indices: make(tf.constant(indices))


def conversion(pixels: np.ndarray, batch: int, patches: int, square: int) -> Turn:
    """Return the conversion of as many bytes of one batch."""
    chosen = pixels[:batch].copy()
    return lambda indices: chosen.astype(np.float32)


def torch_loop(pixels: np.ndarray, batch: int, patches: int, square: int) -> Turn:
    """Return what torchvision's RandomErasing does to an image, once for each patch."""
    import torch

    torch.set_num_threads(1)
    size, held = pixels.shape[1], torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def make(indices: np.ndarray) -> tuple[Any, Any]:
        targets = held[torch.from_numpy(indices)].to(torch.float32).div_(255)
        inputs = targets.clone()
        for image in inputs:
            for _ in range(patches):
                top = int(torch.randint(0, size - square + 1, (1,)))
                left = int(torch.randint(0, size - square + 1, (1,)))
                image[:, top : top + square, left : left + square] = 0
        return inputs, targets

    return make


def albumentations_dropout(pixels: np.ndarray, batch: int, patches: int, square: int) -> Turn:
    """Return CoarseDropout with holes of one size, on uint8 images."""
    import albumentations
    import cv2

    cv2.setNumThreads(1)
    erase = albumentations.CoarseDropout(
        num_holes_range=(patches, patches), hole_height_range=(square, square), hole_width_range=(square, square),
        fill=0, p=1.0,
    )  # fmt: skip

    def make(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        targets = pixels[indices]
        inputs = np.stack([erase(image=image)["image"] for image in targets])
        return inputs.astype(np.float32) / 255, targets.astype(np.float32) / 255

    return make


SIDES = {
    "tfinpaint": tfinpaint,
    "NumPy loop": numpy_loop,
    "Pillow loop": pillow_loop,
    "Keras RandomErasing": keras_layers,
    "conversion alone": conversion,
    "PyTorch loop": torch_loop,
    "Albumentations": albumentations_dropout,
}


def serve(args: argparse.Namespace) -> None:
    """Take the turns of one side, in its own process and on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, args.size, args.size, 3), np.uint8)
    make = SIDES[args.serve](pixels, args.batch, args.patches, args.size // 8)
    order = np.random.default_rng(1)

    def turn() -> float:
        if args.serve == "tfinpaint":
            make(None)
        begin, batches = time.process_time(), 0
        while batches < 2 or time.process_time() - begin < args.seconds:
            make(order.permutation(IMAGES)[: args.batch])
            batches += 1
        return args.batch * batches / (time.process_time() - begin)

    serve_turns(turn)


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--size", type=int, default=128, help="pixels, a multiple of 8")
    cli.add_argument("--patches", type=int, default=16)
    cli.add_argument("--batch", type=int, default=64)
    cli.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    cli.add_argument("--rounds", type=int, default=7, help="turns of each side")
    cli.add_argument("--peers", help="interpreter with PyTorch and Albumentations")
    cli.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    cli.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.serve:
        serve(args)
        return
    names = ("size", "patches", "batch")
    options = [f"--{name}={getattr(args, name)}" for name in (*names, "seconds")]
    program = [str(Path(__file__)), *options, "--serve"]
    sides = {name: [sys.executable, *program, name] for name in OWN if name in args.sides}
    if args.peers:
        sides |= {name: [args.peers, *program, name] for name in PEERS if name in args.sides}
    else:
        print(f"{' and '.join(PEERS)} are left out: --peers names no environment", file=sys.stderr)
    wanted = dict.fromkeys(sides, ">= 1") | {"NumPy loop": ">= 2", "conversion alone": ""}
    aims = [Aim("tfinpaint", name, wanted[name]) for name in sides if name != "tfinpaint"]
    settings = {name: getattr(args, name) for name in names}
    print_comparison("erasing", settings, "images/s on one core", take_turns(sides, args.rounds), aims)


if __name__ == "__main__":
    main()
