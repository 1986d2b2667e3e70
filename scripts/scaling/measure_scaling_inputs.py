"""Measure on this machine what scaling_model.py needs, and write it as JSON (scaling_model.py lists the fields).

usage: python scripts/scaling/measure_scaling_inputs.py docs/scaling.json [--rounds 3]

Trains the context encoder (43 M parameters, 64 px, 16 images a rank, one thread a rank) on 1, 2 and 4 ranks in turns,
each round again: steps with Horovod beside the same steps without it, so that what the ranks cost each other as
neighbours is told from what their communication costs. Between two ranks it also times all-reduces of 4 B to 64 MB.
Others' programs on the machine spoil such figures. So a step counts for the processor time that the ranks had in it,
on the processors that they can use, where that is less than the clock says; and the medians written are those of the
quietest third of all steps, with the share of the processors that others had even then. About 10 minutes on 2 idle
cores; needs mpirun (scripts/setup brings it).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDE, BATCH = 64, 16  # pixels; images per rank
RANKS = (1, 2, 4)
STEPS = 8  # of each kind, on each number of ranks, in each round
QUIETEST = 1 / 3
SIZES = [4 * 4**power for power in range(13)]  # bytes, 4 B to 64 MB
PARTS = 4  # tensors an all-reduce is made of: as in a step, they are copied into Horovod's fusion buffer and out of it
REPEATS = 20
QUICK_CYCLE_MS = 0.1  # so that an all-reduce's time is its own, not its wait for the next cycle
PUBLISHED = {"resnet101": "ResNet101", "inception_v3": "InceptionV3", "vgg16": "VGG16"}  # names in keras.applications


def layer_macs(layer) -> int:
    """Multiply-adds of a layer's forward pass on one image; 0 for layers without a kernel."""
    import keras

    if not hasattr(layer, "kernel"):
        return 0
    # A transposed convolution applies its whole kernel at each input position, all others at each output position.
    shape = layer.input.shape if isinstance(layer, keras.layers.Conv2DTranspose) else layer.output.shape
    return int(np.prod(layer.kernel.shape)) * int(np.prod(shape[1:-1]))


def gradients_of(model) -> list[list[float]]:
    """[bytes in float32, share of the backward pass after which it is ready] of each gradient, in that order.

    The backward pass visits the layers from the last to the first and is taken to spend on each what its multiply-adds
    are of all.
    """
    macs = [layer_macs(layer) for layer in model.layers]
    done = np.cumsum(macs[::-1]) / sum(macs)
    return [
        [4 * int(np.prod(variable.shape)), round(float(share), 4)]
        for layer, share in zip(reversed(model.layers), done, strict=True)
        for variable in reversed(layer.trainable_variables)
    ]


def network(model) -> dict:
    return {"macs_per_image": sum(map(layer_macs, model.layers)), "gradients": gradients_of(model)}


def inpainter(side: int):
    from tfinpaint.models.decoder import build_inpainter
    from tfinpaint.models.encoder import build_encoder

    return build_inpainter(build_encoder("resnet50", "before_add", side, side))


def networks() -> dict[str, dict]:
    """This project's network at the tutorial's 128 px, and those of the published benchmark."""
    import keras

    found = {name: network(getattr(keras.applications, builder)(weights=None)) for name, builder in PUBLISHED.items()}
    return {"inpainter": network(inpainter(128)), **found}


def start_world(cycle_time_ms: float | None = None):
    from tfinpaint.config.sections import Distributed
    from tfinpaint.distributed.launch import join_ranks

    return join_ranks(Distributed(cycle_time_ms=cycle_time_ms))


def time_steps() -> None:
    """On every rank: time parts of a step and whole ones, with and without Horovod; the first rank prints them."""
    world = start_world()
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model, optimizer = inpainter(SIDE), keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    inputs, targets = (tf.random.uniform((BATCH, SIDE, SIDE, 3)) for _ in range(2))

    def forward():
        return tf.reduce_mean(keras.losses.binary_crossentropy(targets, model(inputs, training=True)))

    def forward_backward():
        with tf.GradientTape() as tape:
            loss = forward()
        return tape.gradient(loss, model.trainable_variables)

    def step_alone():
        optimizer.apply(forward_backward(), model.trainable_variables)

    def step():
        optimizer.apply(world.average_gradients(forward_backward()), model.trainable_variables)

    parts = (forward, forward_backward) if world.size == 1 else ()
    kinds = {f.__name__: tf.function(f, autograph=False) for f in (*parts, step_alone, step)}
    for run in kinds.values():
        run()  # compiles
    for _ in range(STEPS):
        for name, run in kinds.items():
            taken = {"name": name, **timed(run, world)}
            if world.is_rank0:
                print(json.dumps(taken))


def timed(run: Callable[[], object], world) -> dict[str, float]:
    """Run it on all ranks at once.

    Returns:
        clock_s, by the clock; seconds, what it would have taken without others; others, their share of all processors.
    """
    world.sum_values({"barrier": 0.0})
    busy, own, begin = busy_seconds(), time.process_time(), time.perf_counter()
    run()
    clock, own, busy = time.perf_counter() - begin, time.process_time() - own, busy_seconds() - busy
    clock, own = np.sum(world.all_gather([clock, own]), axis=0) / [world.size, 1]
    processors = os.cpu_count() or 1
    seconds = undisturbed_s(clock, own, min(world.size, processors))
    return {"clock_s": clock, "seconds": seconds, "others": max(0.0, busy - own) / (clock * processors)}


def undisturbed_s(clock_s: float, processor_s: float, processors: int) -> float:
    """Seconds without others of what took so much processor time in all, on as many processors as it can use.

    A rank that waits for another one mostly polls, so that undisturbed ranks keep their processors busy; where it
    sleeps until Horovod's next cycle, that is left out. So where others had much, this is a lower bound.
    """
    return min(clock_s, processor_s / processors)


def busy_seconds() -> float:
    """Seconds of processor time that all programs of this machine have taken so far."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def time_all_reduces() -> None:
    """On two ranks: fastest seconds of an all-reduce of each size, and bytes per second of adding float32 arrays."""
    world = start_world(QUICK_CYCLE_MS)
    import tensorflow as tf

    seconds = []
    for size in SIZES:
        tensors = [tf.ones(max(1, size // 4 // PARTS)) for _ in range(PARTS)]
        reduce = tf.function(lambda tensors=tensors: world.average_gradients(tensors), autograph=False)
        seconds.append(min(timed(reduce, world)["seconds"] for _ in range(REPEATS)))
    total, summand = np.ones(2**24, np.float32), np.ones(2**24, np.float32)
    adding = min(seconds_of(lambda: np.add(total, summand, out=total)) for _ in range(REPEATS))
    if world.is_rank0:
        print(json.dumps({"seconds": seconds, "reduce_bytes_per_s": total.nbytes / adding}))


def on_ranks(ranks: int, part: str) -> list[dict]:
    """Run one of the two parts above on ranks of one thread each; the lines that its first rank printed."""
    command = [sys.executable, __file__, "--part", part]
    if ranks > 1:
        launcher = shutil.which("mpirun") or sys.exit("error: no mpirun on the PATH; run scripts/setup")
        command = [launcher, "--oversubscribe", "--mca", "btl_tcp_if_include", "lo", "-np", str(ranks), *command]
    root = Path(__file__).parents[2]
    settings = {
        "PYTHONPATH": str(root),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, cwd=root)
    if done.returncode:
        sys.exit(f"error: {ranks} rank(s) ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def fit_link(sizes: list[int], seconds: list[float], reduce_bytes_per_s: float) -> tuple[float, float]:
    """(latency in s, bandwidth in bytes/s) of what two ranks' all-reduces took.

    For two ranks the model (scaling_model.py) says latency * (2 for the ring + 2 for the negotiation) + bytes *
    (1 / bandwidth + 1/2 / reduction). The latency is that of the small sizes, the bandwidth that of the largest one.
    """
    latency = statistics.median(seconds[:4]) / 4
    per_byte = (seconds[-1] - 4 * latency) / sizes[-1] - 0.5 / reduce_bytes_per_s
    return latency, 1 / per_byte


def quiet(steps: list[dict], name: str, field: str = "seconds") -> np.ndarray:
    """What the field says in those steps of this name during which others took least of the processors."""
    named = sorted((step for step in steps if step["name"] == name), key=lambda step: step["others"])
    return np.array([step[field] for step in named[: max(1, round(QUIETEST * len(named)))]])


def measure(rounds: int) -> dict:
    steps: dict[int, list[dict]] = {ranks: [] for ranks in RANKS}
    reductions = []
    for number in range(rounds):
        for ranks in RANKS:
            steps[ranks] += on_ranks(ranks, "steps")
            rate = ranks * BATCH / np.median(quiet(steps[ranks], "step"))
            print(f"round {number + 1}: {ranks} rank(s), {rate:.2f} images/s so far", flush=True)
        reductions += on_ranks(2, "all_reduces")
    names = ("forward", "forward_backward", "step_alone")
    forward, both, alone = (float(np.median(quiet(steps[1], name))) for name in names)
    noise = quiet(steps[1], "step_alone")
    reduce_bytes_per_s = max(one["reduce_bytes_per_s"] for one in reductions)
    taken = np.min([one["seconds"] for one in reductions], axis=0).tolist()
    latency_s, bandwidth = fit_link(SIZES, taken, reduce_bytes_per_s)
    rates = {ranks: ranks * BATCH / quiet(steps[ranks], "step") for ranks in RANKS}
    by_the_clock = {ranks: ranks * BATCH / quiet(steps[ranks], "step", "clock_s") for ranks in RANKS}
    return {
        "forward_s": forward,
        "backward_s": both - forward,
        "update_s": alone - both,
        "per_rank_batch": BATCH,
        "step_noise_sigma": float(noise.std() / noise.mean()),
        "cores": os.cpu_count(),
        "neighbour_slowdown": float(np.median(quiet(steps[2], "step_alone"))) / alone,
        "latency_s": latency_s,
        "bandwidth_bytes_per_s": bandwidth,
        "reduce_bytes_per_s": reduce_bytes_per_s,
        "measured": {ranks: float(np.median(rate)) for ranks, rate in rates.items()},
        "measured_range": {ranks: [float(rate.min()), float(rate.max())] for ranks, rate in rates.items()},
        "measured_by_the_clock": {ranks: float(np.median(rate)) for ranks, rate in by_the_clock.items()},
        "others_share": {ranks: float(np.median(quiet(steps[ranks], "step", "others"))) for ranks in RANKS},
        "all_reduce_s": dict(zip(SIZES, taken, strict=True)),
        "gradients": gradients_of(inpainter(SIDE)),
        "networks": networks(),
    }


def significant(value, digits: int = 4):
    """The same JSON value with its floats shortened to what was measured."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: significant(inner, digits) for key, inner in value.items()}
    return [significant(inner, digits) for inner in value] if isinstance(value, list) else value


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("output", type=Path, nargs="?", default=Path("runs/scaling_inputs.json"))
    cli.add_argument("--rounds", type=int, default=3)
    cli.add_argument("--part", choices=("steps", "all_reduces"), help=argparse.SUPPRESS)  # in the ranks it starts
    args = cli.parse_args()
    if args.part:
        {"steps": time_steps, "all_reduces": time_all_reduces}[args.part]()
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in significant(measure(args.rounds)).items())
    args.output.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
