"""Draw docs/scaling.png and write the tables of docs/scaling.md: the model beside what is measured and published.

usage: python scripts/scaling/scaling_report.py [docs/scaling.json]

Beside the fields that scaling_model.py tells, the file has
    measured_by_the_clock, others_share: {"1": ..., "2": ..., "4": ...}, images/s by the clock, and the share of the
        processors that others had meanwhile; "measured" is without others
    measured_range: {"1": [lowest, highest], ...}, of the steps whose median "measured" is
    networks: {name: {"macs_per_image": multiply-adds of the forward pass, "gradients": [[bytes, ready share], ...]}},
        of this project's network ("inpainter", at 128 px) and of those in PUBLISHED
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import scaling_model
from matplotlib.figure import Figure
from scaling_model import RANKS, Cluster, Inputs, Job, Link, predict
from scipy import optimize

from tfinpaint.cli.command import run_command

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- tables: made by scripts/scaling/scaling_report.py -->", "<!-- end of the tables -->"


@dataclass(frozen=True)
class Published:
    """A row of Horovod's benchmark; docs/scaling.md has the sources.

    Attributes:
        images_per_s: of one GPU at 64 images.
        efficiency: by number of GPUs.
    """

    label: str
    images_per_s: float
    efficiency: dict[int, float]


PUBLISHED = {
    "inception_v3": Published("Inception V3", 134.4, {128: 0.90, 512: 0.90}),
    "resnet101": Published("ResNet-101", 119.4, {128: 0.90, 512: 0.90}),
    "vgg16": Published("VGG-16", 130.9, {128: 0.79, 512: 0.68}),
}
NOISE_POINT = ("resnet101", 512)  # which the noise of a GPU's step is taken from; the others are the check
SPEED_POINT = ("vgg16", 128)  # which the network's real speed is taken from, in the last column alone
BATCH = 64
# 4 GPUs a host on PCI Express 3.0 x16, 25 Gbit/s between hosts; latencies of a ring's hop as in NCCL's own cost model.
# Cycle and fusion threshold are Horovod's defaults of the time.
GPU_CLUSTER = Cluster(Link(5.7e-6, 12e9), Link(14e-6, 25e9 / 8), ranks_per_host=4, cores_per_host=4, cycle_s=0.005)
OUR_BATCH = 32  # per GPU: the tutorial's 128 on 4 of them


def gpu_job(network: dict, images_per_s: float, batch: int, noise: float) -> Job:
    """A step of so many images; forward takes a third of it, as each layer's backward pass is two such products."""
    step_s = batch / images_per_s
    gradients = tuple((size, share) for size, share in network["gradients"])
    return Job(step_s / 3, step_s * 2 / 3, 0.0, batch, gradients, noise)


def published_jobs(networks: dict[str, dict], noise: float) -> dict[str, Job]:
    return {name: gpu_job(networks[name], row.images_per_s, BATCH, noise) for name, row in PUBLISHED.items()}


def our_job(networks: dict[str, dict], noise: float, batch: int = OUR_BATCH) -> Job:
    """This project's network on such a GPU, taken to reach as many multiply-adds per second there as ResNet-101."""
    known = networks["resnet101"]["macs_per_image"] * PUBLISHED["resnet101"].images_per_s
    return gpu_job(networks["inpainter"], known / networks["inpainter"]["macs_per_image"], batch, noise)


def calibrated_noise(networks: dict[str, dict]) -> float:
    """The noise with which the model meets the point it is calibrated on, all else being as it stands above."""
    quiet = published_jobs(networks, 0.0)[NOISE_POINT[0]]
    return _meeting(NOISE_POINT, lambda noise: (dataclasses.replace(quiet, noise=noise), GPU_CLUSTER), (0.0, 1.0))


def calibrated_network(networks: dict[str, dict], noise: float) -> Cluster:
    """The cluster with that share of its network's speed with which the model meets a second point."""
    job, line = published_jobs(networks, noise)[SPEED_POINT[0]], GPU_CLUSTER.between

    def slowed(share: float) -> Cluster:
        link = Link(line.latency_s, share * line.bandwidth_bytes_per_s)
        return dataclasses.replace(GPU_CLUSTER, between=link)

    return slowed(_meeting(SPEED_POINT, lambda share: (job, slowed(share)), (0.3, 1.0)))


def _meeting(
    point: tuple[str, int], case: Callable[[float], tuple[Job, Cluster]], between: tuple[float, float]
) -> float:
    """The value between two whose case is as efficient as published at the point."""
    name, ranks = point

    def off(value: float) -> float:
        return predict(*case(value), ranks).efficiency - PUBLISHED[name].efficiency[ranks]

    return float(optimize.brentq(off, *between))


def tables(path: Path) -> str:
    """The three tables of the page, from the file of what was measured."""
    inputs, raw = scaling_model.read(path), json.loads(path.read_text())
    networks = raw["networks"]
    return "\n\n".join([_machine_table(inputs, raw), _published_table(networks), _curve_table(inputs, networks)])


def _machine_table(inputs: Inputs, raw: dict) -> str:
    rows = [
        "| ranks here | by the clock, images/s | others' share | without others | predicted | error "
        "| computing, s | communicating | waiting |",
        "|---" * 9 + "|",
    ]
    for ranks, measured, predicted in scaling_model.calibration(inputs):
        step = predict(inputs.job, inputs.cluster(ranks_per_host=ranks), ranks)
        low, high = raw["measured_range"][str(ranks)]
        communication_s = step.communication_s + step.negotiation_s
        rows.append(
            f"| {ranks} | {raw['measured_by_the_clock'][str(ranks)]:.1f} | {raw['others_share'][str(ranks)]:.0%} "
            f"| {measured:.1f} ({low:.1f} to {high:.1f}) | {predicted:.1f} | {predicted / measured - 1:+.1%} "
            f"| {step.compute_s:.2f} | {communication_s:.2f} | {step.waiting_s:.2f} |"
        )
    return "\n".join(rows)


def _published_table(networks: dict[str, dict]) -> str:
    noise = calibrated_noise(networks)
    slower = calibrated_network(networks, noise)
    gbit_per_s = slower.between.bandwidth_bytes_per_s * 8e-9
    rows = [
        f"| benchmark | GPUs | published | nothing calibrated | noise {noise:.1%} | and {gbit_per_s:.1f} Gbit/s |",
        "|---|---|---|---|---|---|",
    ]
    quiet, noisy = published_jobs(networks, 0.0), published_jobs(networks, noise)
    for name, row in PUBLISHED.items():
        for ranks, efficiency in row.efficiency.items():
            cases = [(quiet[name], GPU_CLUSTER), (noisy[name], GPU_CLUSTER), (noisy[name], slower)]
            cells = [f"{predict(*case, ranks).efficiency:.0%}" for case in cases]
            for column, point in ((1, NOISE_POINT), (2, SPEED_POINT)):
                cells[column] += " (calibrated on)" if (name, ranks) == point else ""
            rows.append(f"| {row.label} | {ranks} | {efficiency:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _curve_table(inputs: Inputs, networks: dict[str, dict]) -> str:
    rows = ["| efficiency on ranks | " + " | ".join(map(str, RANKS[1:])) + " |", "|---" * len(RANKS) + "|"]
    for label, job, cluster in curves(inputs, networks):
        cells = (f"{predict(job, cluster, ranks).efficiency:.2f}" for ranks in RANKS[1:])
        rows.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def curves(inputs: Inputs, networks: dict[str, dict]) -> list[tuple[str, Job, Cluster]]:
    """(label, job, cluster) of every row of the last table; the figure shows some of them."""
    noise = calibrated_noise(networks)
    ours = our_job(networks, noise)
    jobs = published_jobs(networks, noise)
    hierarchical = dataclasses.replace(GPU_CLUSTER, algorithm="hierarchical")
    tree = dataclasses.replace(GPU_CLUSTER, algorithm="tree")
    return [
        *((row.label, jobs[name], GPU_CLUSTER) for name, row in PUBLISHED.items()),
        (f"ours, {OUR_BATCH} images a GPU", ours, GPU_CLUSTER),
        ("ours, float16 gradients", scaling_model.compressed(ours), GPU_CLUSTER),
        ("ours, hierarchical", ours, hierarchical),
        ("ours, tree", ours, tree),
        (f"ours, {4 * OUR_BATCH} images a GPU", our_job(networks, noise, 4 * OUR_BATCH), GPU_CLUSTER),
        ("machines like this one", inputs.job, inputs.cluster(GPU_CLUSTER.between)),
    ]


def draw(path: Path, picture: Path) -> None:
    inputs, networks = scaling_model.read(path), json.loads(path.read_text())["networks"]
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    shown = curves(inputs, networks)
    for number, (label, job, cluster) in enumerate([*shown[:5], shown[-1]]):
        efficiencies = [predict(job, cluster, ranks).efficiency for ranks in RANKS]
        style = "--" if "float16" in label else "-"
        width = 1.5 if number else 4.5  # the first lies beneath the second
        axes.plot(RANKS, efficiencies, style, color=f"C{number}", linewidth=width, label=label)
    for number, row in enumerate(PUBLISHED.values()):
        axes.plot(
            list(row.efficiency), list(row.efficiency.values()), "o", color=f"C{number}", markersize=7 if number else 11
        )
    ranks, measured, predicted = zip(*scaling_model.calibration(inputs), strict=True)
    alone = [inputs.measured[1] * min(number, inputs.cores) for number in ranks]
    for rates, style, label in ((measured, "ks", "measured on this machine"), (predicted, "kx", "predicted for it")):
        axes.plot(ranks, [rate / of_one for rate, of_one in zip(rates, alone, strict=True)], style, label=label)
    axes.plot([], [], "o", color="grey", label="published (Horovod)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(RANKS, [str(ranks) for ranks in RANKS])
    axes.set(xlabel="ranks", ylabel="efficiency", ylim=(0, 1.05))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def updated(text: str, made: str) -> str:
    """Return the text of the page with its tables replaced."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{made}\n\n{END}{tail}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("inputs", type=Path, nargs="?", default=DOCS / "scaling.json")
    path = options.parse_args().inputs
    draw(path, DOCS / "scaling.png")
    page = DOCS / "scaling.md"
    page.write_text(updated(page.read_text(), tables(path)))


if __name__ == "__main__":
    sys.exit(run_command(main))
