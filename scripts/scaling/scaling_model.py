"""Predict how training scales to 1,024 ranks, from what one rank and two neighbours measure. Needs no TensorFlow.

usage: python scripts/scaling/scaling_model.py docs/scaling.json [--algorithm ring] [--gbit-per-s 25] [--latency-us 14]
       [--fp16]

Prints how far the model is from the rates measured on this machine, and what it predicts for many such machines joined
by a network of that speed. measure_scaling_inputs.py writes the file; docs/scaling.md lists the assumptions.

The file's fields, in SI units; others may stand beside them:
    forward_s, backward_s, update_s: of one step of one rank that has its processor to itself
    per_rank_batch: images
    gradients: [[bytes, share of the backward pass after which it is ready], ...], in the order of the backward pass
    step_noise_sigma: standard deviation of a step's time / its mean
    cores, neighbour_slowdown: processors of the machine; a step's time with all of them at work / with one
    latency_s, bandwidth_bytes_per_s, reduce_bytes_per_s: between two ranks of the machine; of adding up gradients
    measured: {"1": images/s, "2": ..., "4": ...}, of all ranks together
"""

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError
from scipy import integrate, stats

from tfinpaint.cli.command import run_command
from tfinpaint.errors import UserError

RANKS = [2**power for power in range(11)]
Gradients = tuple[tuple[PositiveFloat, Annotated[float, Field(ge=0, le=1)]], ...]


@dataclass(frozen=True)
class Job:
    """One step of one rank on a processor of its own.

    Attributes:
        gradients: (bytes, share of the backward pass after which it is ready), in the order of the backward pass.
        noise: standard deviation of a step's time / its mean.
    """

    forward_s: float
    backward_s: float
    update_s: float
    per_rank_batch: int
    gradients: Gradients
    noise: float = 0.0

    @property
    def step_s(self) -> float:
        return self.forward_s + self.backward_s + self.update_s


@dataclass(frozen=True)
class Link:
    """Messages take latency_s + bytes / bandwidth_bytes_per_s (Hockney's model)."""

    latency_s: float
    bandwidth_bytes_per_s: float


@dataclass(frozen=True)
class Cluster:
    """Hosts with ranks on them, and how Horovod runs there.

    Attributes:
        within: between ranks of one host.
        between: between hosts; one for all ranks of a host.
        ranks_per_host, cores_per_host: with more ranks than processors, ranks take turns.
        neighbour_slowdown: of computing, where several ranks of a host are at work (they share its memory).
        reduce_bytes_per_s: rate of adding up received gradients.
        algorithm: "ring" over all ranks; "hierarchical": rings within the hosts, then between them; "tree": the same
            with recursive halving and doubling between them.
        cycle_s, fusion_bytes: HOROVOD_CYCLE_TIME, HOROVOD_FUSION_THRESHOLD.
        coordinator_s_per_rank: what the first rank takes in each cycle to read another one's message; with Horovod's
            response cache (Romero et al., 2022) there are none.
        taken: share of a rank's processor that communication takes from the backward pass: 1 where the same processor
            does both, 0 where network card and copy engines do it.
    """

    within: Link
    between: Link
    ranks_per_host: int
    cores_per_host: int
    neighbour_slowdown: float = 1.0
    reduce_bytes_per_s: float = math.inf
    algorithm: str = "ring"
    cycle_s: float = 0.001
    fusion_bytes: float = 64 * 2**20
    coordinator_s_per_rank: float = 0.0
    taken: float = 0.0

    def local(self, ranks: int) -> int:
        return min(ranks, self.ranks_per_host)

    def hosts(self, ranks: int) -> int:
        return math.ceil(ranks / self.ranks_per_host)

    def turns(self, ranks: int) -> float:
        """Ranks that share a processor."""
        return max(1.0, self.local(ranks) / self.cores_per_host)

    def all_reduce_s(self, size: float, ranks: int) -> float:
        """Seconds of an all-reduce of `size` bytes. Processors that ranks share do its work by turns, too."""
        local, hosts = self.local(ranks), self.hosts(ranks)
        if hosts == 1:
            seconds = ring_s(size, ranks, self.within, self.reduce_bytes_per_s)
        elif self.algorithm == "ring":
            # A lap goes through every host once; the slowest link sets the pace of the whole ring.
            lap = hosts * self.between.latency_s + (ranks - hosts) * self.within.latency_s
            links = (self.between, self.within) if local > 1 else (self.between,)
            slowest = min(link.bandwidth_bytes_per_s for link in links)
            seconds = ring_s(size, ranks, Link(lap / ranks, slowest), self.reduce_bytes_per_s)
        else:
            # The n-th ranks of the hosts reduce the n-th part of the data, all at once through the host's one link.
            reduce = halving_doubling_s if self.algorithm == "tree" else ring_s
            share = Link(self.between.latency_s, self.between.bandwidth_bytes_per_s / local)
            seconds = ring_s(size, local, self.within, self.reduce_bytes_per_s)
            seconds += reduce(size / local, hosts, share, self.reduce_bytes_per_s)
        return seconds * (self.turns(ranks) if self.taken else 1.0)

    def negotiation_s(self, ranks: int) -> float:
        """Seconds in which the ranks agree on what is ready everywhere: a message up a tree and one down it again."""
        up = math.ceil(math.log2(self.hosts(ranks))) * self.between.latency_s
        up += math.ceil(math.log2(self.local(ranks))) * self.within.latency_s
        return 2 * up + (ranks - 1) * self.coordinator_s_per_rank


def ring_s(size: float, ranks: int, link: Link, reduce_bytes_per_s: float) -> float:
    """Seconds of a ring all-reduce: reduce-scatter and all-gather (Patarasu and Yuan, 2009)."""
    return 2 * (ranks - 1) * link.latency_s + _moving_s(size, ranks, link, reduce_bytes_per_s)


def halving_doubling_s(size: float, ranks: int, link: Link, reduce_bytes_per_s: float) -> float:
    """Seconds of an all-reduce by recursive halving, then doubling (Rabenseifner; Thakur et al., 2005)."""
    return 2 * math.ceil(math.log2(ranks)) * link.latency_s + _moving_s(size, ranks, link, reduce_bytes_per_s)


def _moving_s(size: float, ranks: int, link: Link, reduce_bytes_per_s: float) -> float:
    part = (ranks - 1) / ranks * size
    return 2 * part / link.bandwidth_bytes_per_s + part / reduce_bytes_per_s


@dataclass(frozen=True)
class Backward:
    """Seconds of a backward pass until every gradient is reduced, and of what the ranks said to each other in it."""

    whole_s: float
    reducing_s: float
    negotiating_s: float


def backward(
    gradients: Sequence[tuple[float, float]],
    alone_s: float,
    reduce_s: Callable[[float], float],
    *,
    negotiation_s: float,
    cycle_s: float,
    fusion_bytes: float,
    taken: float,
) -> Backward:
    """Horovod's loop, event by event.

    It wakes once a cycle (at once, where the last one took longer), negotiates, fuses the gradients that are ready, in
    order, up to the threshold, and reduces one buffer after another.

    Args:
        gradients: (bytes, ready share) in order.
        alone_s: the backward pass without communication.
        reduce_s: seconds to reduce a buffer of so many bytes.
        taken: by how much communication slows the backward pass meanwhile.
    """
    clock = done = woken = 0.0  # now; backward work done so far, in seconds of alone_s; the last cycle's begin
    reducing = negotiating = 0.0
    waiting = list(gradients)
    while waiting:
        ready_at = clock + max(0.0, waiting[0][1] * alone_s - done)
        cycles = max(1, math.ceil((ready_at - woken) / cycle_s - 1e-9))
        woken = max(clock, woken + cycles * cycle_s)
        done += woken - clock
        ready = [size for size, share in waiting if share * alone_s <= done + 1e-12]
        del waiting[: len(ready)]
        reduction = sum(map(reduce_s, _fuse(ready, fusion_bytes)))
        clock = woken + negotiation_s + reduction
        done += (1 - taken) * (clock - woken)
        reducing += reduction
        negotiating += negotiation_s
    return Backward(clock + max(0.0, alone_s - done), reducing, negotiating)


def _fuse(sizes: Sequence[float], limit: float) -> list[float]:
    buffers: list[float] = []
    for size in sizes:
        if buffers and buffers[-1] + size <= limit:
            buffers[-1] += size
        else:
            buffers.append(size)
    return buffers


@functools.cache
def slowest_of(ranks: int) -> float:
    """Expected maximum of so many standard normal variables."""
    at_most = stats.norm.cdf
    above = integrate.quad(lambda x: 1 - at_most(x) ** ranks, 0, 10)[0]
    return above - integrate.quad(lambda x: at_most(x) ** ranks, -10, 0)[0]


@dataclass(frozen=True)
class Step:
    """Seconds of one step on all ranks, by what they are spent on, and what comes of it.

    Attributes:
        communication_s, negotiation_s: what computing does not hide of both, divided by what each took in all.
        waiting_s: for the slowest rank.
        efficiency: images per second / (those of one rank alone * processors at work).
    """

    compute_s: float
    communication_s: float
    negotiation_s: float
    waiting_s: float
    images_per_s: float
    efficiency: float


def predict(job: Job, cluster: Cluster, ranks: int) -> Step:
    """One synchronous step; every rank has the same batch whatever their number (weak scaling)."""
    local = cluster.local(ranks)
    slowdown = cluster.turns(ranks) * (cluster.neighbour_slowdown if local > 1 else 1.0)
    alone_s, compute_s = slowdown * job.backward_s, slowdown * job.step_s

    passed = backward(
        job.gradients if ranks > 1 else (),
        alone_s,
        lambda size: cluster.all_reduce_s(size, ranks),
        negotiation_s=cluster.negotiation_s(ranks),
        cycle_s=cluster.cycle_s,
        fusion_bytes=cluster.fusion_bytes,
        taken=cluster.taken,
    )
    exposed_s = passed.whole_s - alone_s
    negotiation_s = exposed_s * passed.negotiating_s / max(passed.negotiating_s + passed.reducing_s, 1e-12)
    waiting_s = job.noise * compute_s * slowest_of(ranks)
    images_per_s = ranks * job.per_rank_batch / (compute_s + exposed_s + waiting_s)
    processors = ranks / cluster.turns(ranks)
    efficiency = images_per_s * job.step_s / job.per_rank_batch / processors
    return Step(compute_s, exposed_s - negotiation_s, negotiation_s, waiting_s, images_per_s, efficiency)


def compressed(job: Job) -> Job:
    """The same with gradients sent in half as many bytes (float16)."""
    return dataclasses.replace(job, gradients=tuple((size / 2, share) for size, share in job.gradients))


class Inputs(BaseModel, allow_inf_nan=False):
    """What was measured on one machine: the file's fields, told above."""

    forward_s: PositiveFloat
    backward_s: PositiveFloat
    update_s: PositiveFloat
    per_rank_batch: PositiveInt
    gradients: Gradients = Field(min_length=1)
    step_noise_sigma: float = Field(ge=0)
    cores: PositiveInt
    neighbour_slowdown: PositiveFloat
    latency_s: PositiveFloat
    bandwidth_bytes_per_s: PositiveFloat
    reduce_bytes_per_s: PositiveFloat
    measured: dict[PositiveInt, PositiveFloat] = Field(min_length=1)

    @property
    def job(self) -> Job:
        seconds = (self.forward_s, self.backward_s, self.update_s)
        return Job(*seconds, self.per_rank_batch, self.gradients, self.step_noise_sigma)

    def cluster(
        self, between: Link | None = None, ranks_per_host: int | None = None, algorithm: str = "ring"
    ) -> Cluster:
        """Machines like this one, a rank per processor unless told otherwise; without a network, one alone."""
        within = Link(self.latency_s, self.bandwidth_bytes_per_s)
        return Cluster(
            within,
            between or within,
            ranks_per_host or self.cores,
            self.cores,
            self.neighbour_slowdown,
            self.reduce_bytes_per_s,
            algorithm,
            cycle_s=0.005,  # what tfinpaint.distributed.world sets where ranks share a few cores
            taken=1.0,
        )


def read(path: Path) -> Inputs:
    """
    Raises:
        UserError: there is no such file, or it lacks a field, or a value is out of range.
    """
    try:
        return Inputs.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; scripts/scaling/measure_scaling_inputs.py {path} makes it"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path}: {where}: {first['msg']}; scripts/scaling/measure_scaling_inputs.py makes such files"
        ) from None


def calibration(inputs: Inputs) -> list[tuple[int, float, float]]:
    """(ranks, measured, predicted) images per second on the machine itself."""
    return [
        (ranks, measured, predict(inputs.job, inputs.cluster(ranks_per_host=ranks), ranks).images_per_s)
        for ranks, measured in sorted(inputs.measured.items())
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("inputs", type=Path)
    options.add_argument("--algorithm", choices=("ring", "hierarchical", "tree"), default="ring")
    options.add_argument("--gbit-per-s", type=float, default=25.0, help="of the network between the machines")
    options.add_argument("--latency-us", type=float, default=14.0, help="of the same, per message")
    options.add_argument("--fp16", action="store_true", help="gradients sent in half as many bytes")
    args = options.parse_args()
    inputs = read(args.inputs)
    print("ranks  measured images/s  predicted   error")
    for ranks, measured, predicted in calibration(inputs):
        print(f"{ranks:5}  {measured:17.2f}  {predicted:9.2f}  {predicted / measured - 1:+6.1%}")
    job = compressed(inputs.job) if args.fp16 else inputs.job
    cluster = inputs.cluster(Link(args.latency_us * 1e-6, args.gbit_per_s * 1e9 / 8), algorithm=args.algorithm)
    print(f"\n{inputs.cores} ranks a machine, {args.gbit_per_s:g} Gbit/s between them; seconds of a step:")
    print("ranks  compute  communicate  negotiate  wait  images/s  efficiency")
    for ranks in RANKS:
        step = predict(job, cluster, ranks)
        print(
            f"{ranks:5}  {step.compute_s:7.3f}  {step.communication_s:11.3f}  {step.negotiation_s:9.4f}  "
            f"{step.waiting_s:4.2f}  {step.images_per_s:8.1f}  {step.efficiency:10.3f}"
        )


if __name__ == "__main__":
    sys.exit(run_command(main))
