"""Images per second from a folder of JPEG files to float tensors of one size, beside Keras and PyTorch.

usage: python scripts/bench/jpeg.py [--width 1024] [--size 128] [--batch 32] [--images 256] [--seconds 2] [--rounds 5]
           [--peers PYTHON] [--sides NAME...]

Writes photo-like images, `--width` pixels wide and three quarters as high, of quality 90, and reads them in random
order on all cores, each side in a process of its own, which begins again in each turn:

- tfinpaint: its pipeline, erasing of 16 patches included; "whole" is that with `data.jpeg_scaling: false`
- Keras: `keras.utils.image_dataset_from_directory` and a map that divides by 255
- PyTorch: a DataLoader with a worker per core, whose dataset opens and resizes with Pillow and makes a tensor

PYTHON is the interpreter of an environment with PyTorch (`pip install torch numpy pillow`); without it that side is
left out. Prints by how much `data.jpeg_scaling` changes pixels, the median and range of each side and of the ratios of
neighbouring turns, then all values as one line of JSON.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from turns import Aim, print_comparison, serve_turns, take_turns

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

OCTAVES = 7


def write_photos(folder: Path, images: int, width: int) -> None:
    """Write images with structure of every size, as photographs have; amplitudes fall with the frequency."""
    generator = np.random.default_rng(0)
    height = width * 3 // 4
    folder.mkdir()
    for number in range(images):
        pixels = np.full([height, width, 3], 128.0, np.float32)
        for octave in range(OCTAVES):
            coarse = generator.normal(0, 60 * 0.6**octave, (3 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
            for channel in range(3):
                layer = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
                pixels[..., channel] += np.asarray(layer)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=90)


def tfinpaint(folder: Path, size: int, batch: int, *, jpeg_scaling: bool = True) -> Iterable[Any]:
    """Return batches of the project's pipeline."""
    from tfinpaint.config.schema import Config
    from tfinpaint.data import pipeline
    from tfinpaint.data.examples import Images, RankShare
    from tfinpaint.data.listing import listing
    from tfinpaint.data.tasks import inpainting_task

    steps = [{"resize": [size, size]}, {"random_patches": {"number": 16, "size": size // 8}}]
    config = Config.model_validate({"data": {"transforms": steps, "jpeg_scaling": jpeg_scaling}})
    task = inpainting_task(config, separate=False, augment=True)
    images = Images.open(listing.list_images(folder), RankShare(), task.images, preload=False)
    return pipeline.train_batches(
        images, batch_size=batch, seed=0, first_step=0, prepare=task.prepare, leave_out=task.not_trained_on
    )


def whole(folder: Path, size: int, batch: int) -> Iterable[Any]:
    """Return batches of images that were decoded whole."""
    return tfinpaint(folder, size, batch, jpeg_scaling=False)


def keras_dataset(folder: Path, size: int, batch: int) -> Iterable[Any]:
    """Return batches of `image_dataset_from_directory`."""
    import keras
    import tensorflow as tf

    data = keras.utils.image_dataset_from_directory(
        folder, labels=None, batch_size=batch, image_size=(size, size), verbose=False
    )
    scaled = data.map(lambda images: images / 255, num_parallel_calls=tf.data.AUTOTUNE)
    return scaled.repeat().prefetch(tf.data.AUTOTUNE)


def torch_loader(folder: Path, size: int, batch: int) -> Iterable[Any]:
    """Return a DataLoader of 1000 passes."""
    import torch

    paths = sorted(folder.iterdir())

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1000 * len(paths)

        def __getitem__(self, index: int) -> Any:
            with Image.open(paths[index % len(paths)]) as file:
                image = file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32).div_(255)

    return torch.utils.data.DataLoader(Photos(), batch, shuffle=True, num_workers=len(os.sched_getaffinity(0)))


SIDES: dict[str, Callable[[Path, int, int], Iterable[Any]]] = {
    "tfinpaint": tfinpaint,
    "tfinpaint, whole": whole,
    "Keras": keras_dataset,
    "PyTorch": torch_loader,
}


def serve(args: argparse.Namespace) -> None:
    """Take the turns of one side, in its own process."""
    data = SIDES[args.serve](args.folder, args.size, args.batch)

    def turn() -> float:
        batches = iter(data)  # a new one, because the last would have read ahead while the others had their turns
        next(batches)
        begin, count = time.perf_counter(), 0
        while count < 2 or time.perf_counter() - begin < args.seconds:
            next(batches)
            count += 1
        return args.batch * count / (time.perf_counter() - begin)

    serve_turns(turn)


def print_difference(folder: Path, size: int) -> None:
    """Print by how much pixels differ between both ways of decoding."""
    from tfinpaint.config.transforms import Transform
    from tfinpaint.data.images.decode import DecodeOptions, read_image

    steps = (Transform(resize=[size, size]),)
    paths, options = sorted(folder.iterdir())[:16], (DecodeOptions(steps), DecodeOptions(steps, jpeg_scaling=False))
    fast, exact = (np.stack([read_image(path, each) for path in paths]).astype(int) for each in options)
    found = np.abs(fast - exact)
    print(f"jpeg_scaling changes pixels by {found.mean():.2f} of 255 on average, by {found.max()} at most")


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--width", type=int, default=1024, help="of the files, in pixels")
    cli.add_argument("--size", type=int, default=128, help="of the tensors, in pixels")
    cli.add_argument("--batch", type=int, default=32)
    cli.add_argument("--images", type=int, default=256)
    cli.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    cli.add_argument("--rounds", type=int, default=5, help="turns of each side")
    cli.add_argument("--peers", help="interpreter with PyTorch")
    cli.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    cli.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    cli.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    args = cli.parse_args()
    if args.serve:
        serve(args)
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "photos"
        write_photos(folder, args.images, args.width)
        print_difference(folder, args.size)
        options = [f"--{name}={getattr(args, name)}" for name in ("size", "batch", "seconds")]
        program = [str(Path(__file__)), *options, f"--folder={folder}", "--serve"]
        sides = {name: [sys.executable, *program, name] for name in SIDES if name in args.sides and name != "PyTorch"}
        if args.peers and "PyTorch" in args.sides:
            sides["PyTorch"] = [args.peers, *program, "PyTorch"]
        elif not args.peers:
            print("PyTorch is left out: --peers names no environment", file=sys.stderr)
        aims = [Aim("tfinpaint", name, ">= 1.5") for name in sides if not name.startswith("tfinpaint")]
        aims.append(Aim("tfinpaint", "tfinpaint, whole"))
        settings = {name: getattr(args, name) for name in ("width", "size", "batch", "images")}
        print_comparison("JPEG files to tensors", settings, "images/s", take_turns(sides, args.rounds), aims)


if __name__ == "__main__":
    main()
