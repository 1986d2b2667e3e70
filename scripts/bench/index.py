"""Time and memory, per rank, of millions of images before the first of them is read.

usage: python scripts/bench/index.py [--images 5000000] [--folders 1000] [--ranks 1 8] [--batch 256] [--files 200000]

Lists the names of images in class folders through the project's own walk, index and cache; only the directories are
imagined, so that millions of files are not needed. Then, in a process of its own for each number of ranks, it does what
a rank does when a run starts: list the class folders from the cache, compare the names with the other ranks', find out
which images of its share are known to be readable, and shuffle a whole pass. Last it lists real files, empty ones,
without a cache and with it.

Prints a JSON line for each thing done. Memory is what the process has to itself (RssAnon of /proc/self/status, looked
at every few milliseconds) above what it had before. The cached index is not in it: it is mapped from a file, once for
all ranks of a host.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from tfinpaint.data.images.decode import DecodeOptions
from tfinpaint.data.listing import check, folder_cache, walk
from tfinpaint.data.listing import listing as sources
from tfinpaint.data.listing.check import CheckResult, check_images_once
from tfinpaint.data.listing.duplicates import fingerprint_width

ROOT = Path("/imagined")
SETTLED_NS = 10**18  # a time long ago


def private_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("RssAnon:"))


@contextmanager
def measure(what: str, images: int, **facts: object) -> Iterator[None]:
    """Print how long something takes, and how much memory at its peak and after it."""
    before, peaks, done = private_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            peaks[0] = max(peaks[0], private_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    yield
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    kept = private_bytes() - before
    peak = max(peaks[0], kept)
    line = {"what": what, "images": images, **facts, "seconds": round(seconds, 2)}
    line |= {"peak_mib": round(peak / 2**20, 1), "kept_mib": round(kept / 2**20, 1)}
    print(json.dumps({**line, "peak_bytes_per_image": round(peak / images, 1)}), flush=True)


def imagine(images: int, folders: int) -> None:
    """Folders `class_00000`, ... that hold `images` names together, in place of what is on the disk."""
    share = -(-images // folders)

    def read_folder(place: str, seen: set) -> tuple[int, list[str], int]:
        _, _, number = place.rpartition("class_")
        if not number.isdecimal():
            return SETTLED_NS, [f"class_{folder:05}/" for folder in range(folders)], 0
        first = int(number) * share
        return SETTLED_NS, [f"image_{image:08}.jpg" for image in range(first, min(first + share, images))], 0

    def check_images(listing: sources.Listing, indices: Sequence[int], options: DecodeOptions) -> CheckResult:
        return CheckResult({}, [], np.ones((len(indices), fingerprint_width(len(listing))), np.uint8))

    for owner, name, imagined in (
        (walk, "read_folder", read_folder),
        (sources, "class_folders", lambda root: [f"class_{folder:05}" for folder in range(folders)]),
        (folder_cache, "_is_unchanged", lambda root, index: True),
        (sources.Listing, "state", lambda listing, image: f"{image} {SETTLED_NS}"),
        (check, "check_images", check_images),
    ):
        patch.object(owner, name, imagined).start()  # an error where the name is not there any more


def list_imagined(images: int) -> None:
    with measure("list and write the index", images):
        found = folder_cache.list_folder(ROOT)
    size = found.images.text.nbytes + found.images.starts.nbytes
    print(json.dumps({"what": "the index, shared by a host's ranks", "mib": round(size / 2**20, 1)}), flush=True)


def start_rank(images: int, ranks: int, batch: int) -> None:
    import tensorflow as tf

    from tfinpaint.data import pipeline
    from tfinpaint.data.examples import RankShare

    def shuffle(examples: int) -> None:
        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            rows = pipeline.pass_order(examples, batch, RankShare(0, ranks), 0, epoch)
            return tf.data.Dataset.from_tensor_slices(rows)

        for _ in tf.data.Dataset.range(1).flat_map(order).batch(2**10):
            pass

    shuffle(10 * batch)  # what TensorFlow needs in any case
    facts = {"images": images, "ranks": ranks}
    with measure("all of a rank's start and first pass", **facts):
        with measure("list the class folders", **facts):
            listing = sources.list_class_folders(ROOT)
        with measure("compare the names", **facts):
            listing.paths.digest()
        for what in ("remember which are readable", "recall which are readable"):
            with measure(what, **facts):
                check_images_once(listing, 0, range(0, images, ranks), DecodeOptions())
        with measure("give TensorFlow the labels", **facts):
            labels = tf.constant(listing.labels)
        with measure("shuffle a pass", **facts):
            shuffle(len(listing))
    assert len(labels) == images


def list_real_files(files: int, root: Path) -> None:
    for file in range(files):
        folder = root / f"class_{file // 1000:05}"
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(folder / f"image_{file:08}.jpg", os.O_CREAT))
    for folder in [root, *root.iterdir()]:
        os.utime(folder, (SETTLED_NS / 10**9,) * 2)
    for what in ("list real files", "list them again"):
        with measure(what, files):
            listing = sources.list_images(root)
        assert len(listing) == files
    with measure("look whether they have changed", files):
        assert all(listing.state(file) for file in range(files))


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--images", type=int, default=5_000_000)
    cli.add_argument("--folders", type=int, default=1000)
    cli.add_argument("--ranks", type=int, nargs="*", default=[1, 8])
    cli.add_argument("--batch", type=int, default=256, help="over all ranks")
    cli.add_argument("--files", type=int, default=200_000, help="real files to list; 0 for none")
    cli.add_argument("--start", type=int, help=argparse.SUPPRESS)  # in a process of its own: 0 to list, or the ranks
    args = cli.parse_args()
    if args.start is not None:
        imagine(args.images, args.folders)
        if args.start:
            start_rank(args.images, args.start, args.batch)
        else:
            list_imagined(args.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for ranks in (0, *args.ranks):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--start", str(ranks)], check=True)
        if args.files:
            list_real_files(args.files, Path(folder, "files"))


if __name__ == "__main__":
    main()
