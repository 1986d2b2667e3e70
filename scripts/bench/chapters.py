"""The chapters of docs/benchmarks.md: what each measures, and the commands that measure it."""

from __future__ import annotations

from typing import NamedTuple


class Chapter(NamedTuple):
    """A chapter of the page.

    Attributes:
        title: heading.
        text: what is measured, and what the sides are.
        commands: programs of scripts/bench/, with their arguments.
        has_peers: the commands take --peers, the interpreter of the peers.
    """

    title: str
    text: str
    commands: tuple[str, ...]
    has_peers: bool = False


CHAPTERS = {
    "step": Chapter(
        "One training step",
        "The context encoder (ResNet50 and decoder, 43 M parameters), Adam, all cores. tfinpaint reads preloaded "
        "images through its whole pipeline and erases 16 patches; the peers get one ready batch again and again. "
        "`keras` is a bare `keras.Model.fit` in float32, its default. `torch` is the same network in PyTorch with "
        "channels_last tensors, eager or compiled (`torch.compile`), in float32 or under bfloat16 autocast. tfinpaint "
        "computes in bfloat16 on processors with AVX512_BF16 or AMX_BF16 and in float32 on others (`precision: auto`); "
        "so the aims, which are those of a processor with AVX512_BF16, can be missed on others.",
        ("step.py --size 128 --rounds 3 --steps 1", "step.py --size 64 --rounds 5 --steps 2"),
        has_peers=True,
    ),
    "curves": Chapter(
        "Speed along one setting",
        "The training step at 64 px and batch 32, with one of these varied; erasing at 128 px on one core, with 1 to "
        "256 patches of 1/8 of the side; and the input of training alone for data sets of 1,000 to 1,000,000 images of "
        "8 x 8 pixels in memory, where every turn begins a new pass and therefore shuffles the whole data set. The "
        "exponent b is that of the fitted power law speed = a x^b: -2 for the size would mean that the time is "
        "proportional to the number of pixels, 1 for threads that all of them count, and 0 for patches and the data "
        "set that their number does not matter.",
        tuple(f"curves.py {along} --rounds 2" for along in ("size", "batch", "threads", "patches", "images")),
        has_peers=True,
    ),
    "frozen": Chapter(
        "A frozen encoder",
        "An epoch after the first of a classifier whose encoder is frozen as a whole, or but for its last stage. "
        "tfinpaint computes the features of the frozen layers once, before the first epoch; plain Keras "
        "(`trainable = False`) computes them in every epoch.",
        ("frozen.py --images 128 --rounds 3",),
    ),
    "erasing": Chapter(
        "Erasing",
        "From uint8 images in memory to (input, target, mask) in float32, on one processor with one thread: 16 or 100 "
        "random patches of 1/8 of the side. The limit is the conversion of the same bytes to float32, with nothing "
        "erased.",
        (
            *(f"erasing.py --patches {patches}" for patches in (16, 100)),
            *(f"erasing.py --size {size} --patches 16" for size in (64, 224)),
        ),
        has_peers=True,
    ),
    "jpeg": Chapter(
        "Reading JPEG files",
        "From a folder of JPEG files to batches of float32 tensors. DCT scaling decodes an image that is much larger "
        "than needed at 1/2, 1/4 or 1/8 of its size; `whole` is tfinpaint without it. tfinpaint also erases 16 "
        "patches. It reads, decodes and resizes by Pillow: an image of 1024 px takes 1.45 ms of a core, of which "
        "libjpeg takes 1.05 although it decodes at a quarter of the size, so that 1.5 times Keras's speed is out of "
        "reach there. Small images come faster from Keras, which resizes without anti-aliasing and without Python, and "
        "from PyTorch, whose workers are processes: threads wait for one another in Python, about a fifth of the time "
        "with two cores. Where reading is too slow for a GPU, `data.preload: true` decodes each image only once.",
        ("jpeg.py --width 3072 --images 32", "jpeg.py --width 1024", "jpeg.py --width 160"),
        has_peers=True,
    ),
    "real_data": Chapter(
        "The cost of real data",
        "The time of a training step with images that are read and erased, over that of a step that gets one batch in "
        "memory again and again.",
        ("real_data.py --size 64 --steps 4 --rounds 4",),
    ),
    "startup": Chapter(
        "Start-up",
        "Seconds of whole commands, and from the command to the end of the first training step.",
        ("startup.py --rounds 2 --sizes 128",),
    ),
    "memory": Chapter(
        "Memory",
        "Peak memory of a process that trains at 128 px with a batch of 128, with and without recomputed activations "
        "(`recompute: true`), and of preloaded images.",
        ("memory.py",),
    ),
    "precision": Chapter(
        "bfloat16 against float32",
        "The demo's pretraining and classifier with ResNet50 and ResNet18 in both precisions and three seeds, whose "
        "values stand in the place of turns. The paths of a training run part after the first rounding error, so that "
        "a ratio of two runs with one seed says as little as that of two seeds: compare the medians and ranges. On "
        "processors without AVX512_BF16 or AMX_BF16 bfloat16 is emulated: `--encoder tiny` takes minutes there instead "
        "of hours.",
        ("precision.py", "precision.py --encoder resnet18"),
    ),
    "ranks": Chapter(
        "Two ranks on one host",
        "Images per second of `tfinpaint.pretrain`, in the second epoch of a run: `alone` is one process on all cores, "
        "`mpi` and `gloo` are two ranks of one thread each over all of them. The smaller the images and the faster the "
        "processor, the less time is computed between two reductions of the same 172 MB, which take 0.1 s over MPI and "
        "0.2 s over Gloo, which has no transport through shared memory; and each rank updates all weights, by one "
        "thread. So ranks do not gain on one small host. They are for several hosts and for GPUs.",
        (
            "scaling.py --size 128 --batch 64 --rounds 3 --steps 4 --variants alone mpi gloo",
            "scaling.py --size 64 --batch 64 --rounds 3 --steps 8 --variants alone mpi gloo",
            "scaling.py --size 32 --batch 128 --rounds 3 --steps 12 --variants alone mpi gloo",
        ),
    ),
    "checkpoints": Chapter(
        "Checkpoints",
        "The time of 20 training steps in which a checkpoint of 0.6 GB is written, over that of 20 without.",
        ("checkpoints.py --size 64 --batch 32 --rounds 2 --steps 20",),
    ),
}
