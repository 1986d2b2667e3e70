"""One training step of the same context encoder in PyTorch on CPUs: a peer of scripts/bench/step.py, which starts it.

usage: PYTHON scripts/bench/step_torch.py --size 128 --batch 32 --steps 3 --threads 2 [--precision bf16] [--compile]

PYTHON is that of an environment with PyTorch (`pip install torch numpy`); this package is not needed there. The model
has the 43,068,355 parameters of the Keras model: convolutions with biases, as in keras.applications. Tensors are
channels_last, the optimizer is Adam, the loss binary cross entropy of logits; bf16 is autocast. Input is one batch in
memory. Every line of the standard input asks for a turn, and its images per second are printed (see turns.py).
"""

import argparse
import time

import torch
from torch import nn
from turns import serve_turns

BLOCKS = {64: 3, 128: 4, 256: 6, 512: 3}  # width of a stage of ResNet50 -> its number of blocks
DECODER_FILTERS = (512, 256, 128, 64)


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """A bottleneck block of ResNet50, with its stride in the first convolution, as in keras.applications."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.path = nn.Sequential(
            *convolution(inputs, width, 1, stride), nn.ReLU(inplace=True),
            *convolution(width, width, 3), nn.ReLU(inplace=True),
            *convolution(width, outputs, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(inputs, outputs, 1, stride))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(images) + self.shortcut(images))


def build_model() -> nn.Module:
    layers = [*convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, blocks in BLOCKS.items():
        for block in range(blocks):
            layers.append(Block(channels, width, 2 if block == 0 and width > 64 else 1))
            channels = 4 * width
    for filters in DECODER_FILTERS:
        layers += [nn.ConvTranspose2d(channels, filters, 4, 2, 1), nn.ReLU(inplace=True)]
        channels = filters
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1))


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--size", type=int, required=True)
    cli.add_argument("--batch", type=int, required=True)
    cli.add_argument("--steps", type=int, required=True)
    cli.add_argument("--threads", type=int, required=True)
    cli.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    cli.add_argument("--compile", action="store_true")
    args = cli.parse_args()

    torch.set_num_threads(args.threads)
    model = build_model().to(memory_format=torch.channels_last)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 43_068_355, parameters
    images = torch.rand(args.batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_of = nn.BCEWithLogitsLoss()
    network = torch.compile(model) if args.compile else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            logits = network(images)
        loss_of(logits.float(), images).backward()
        optimizer.step()

    def turn() -> float:
        begin = time.perf_counter()
        for _ in range(args.steps):
            step()
        return args.batch * args.steps / (time.perf_counter() - begin)

    serve_turns(turn)


if __name__ == "__main__":
    main()
