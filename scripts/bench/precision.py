"""Does bfloat16 train as well as float32? The demo's pretraining and classifier in both, with the same seeds.

usage: python scripts/bench/precision.py [--seeds 3] [--epochs 4] [--encoder resnet50]

For every seed and precision: pretrains on scikit-learn's handwritten digits as configs/demo/pretrain.yaml does, then
trains configs/demo/classify.yaml from that encoder. Prints the loss of every epoch of the pretraining, then comparisons
of the last training loss and of the test accuracy, a value for each seed, as tables and as lines of JSON. bfloat16 is
emulated, and slow, on processors without AVX512_BF16 and AMX_BF16; `--encoder tiny` is the small network of the tests.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from turns import Aim, print_comparison

CONFIGS = Path(__file__).parents[2] / "configs" / "demo"
PRECISIONS = ("float32", "mixed_bfloat16")


def run(command: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "tfinpaint", command, *map(str, arguments)], stdout=sys.stderr, check=True)


def records(folder: Path, phase: str, name: str) -> list[float]:
    """The values of a metric of a run, by epoch."""
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if line["phase"] == phase]


def train(folder: Path, data: Path, precision: str, seed: int, args: argparse.Namespace) -> tuple[list[float], float]:
    """Return the training losses of the pretraining, by epoch, and the classifier's test accuracy."""
    common = {
        "seed": seed, "precision": precision, "model.encoder": args.encoder, "figures_interval": 1000,
        "data.input_path": data / "training", "data.test_input_path": data / "testing",
    }  # fmt: skip
    for command, changes in (
        ("pretrain", {"num_epochs": args.epochs}),
        ("classify", {"checkpoints.load": folder / "pretrain"}),
    ):
        options = [part for key, value in (common | changes).items() for part in ("--set", f"{key}={value}")]
        run(command, "--config", CONFIGS / f"{command}.yaml", "--workdir", folder / command, *options)
    losses = records(folder / "pretrain", "train", "loss")
    return losses, records(folder / "classify", "test", "accuracy")[-1]


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--seeds", type=int, default=3)
    cli.add_argument("--epochs", type=int, default=4, help="of the pretraining")
    cli.add_argument("--encoder", choices=("resnet50", "resnet18", "tiny"), default="resnet50")
    args = cli.parse_args()
    curves: dict[str, list[list[float]]] = {precision: [] for precision in PRECISIONS}
    accuracies: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        run("prepare", "digits", data)
        for seed in range(args.seeds):
            for precision in PRECISIONS:
                losses, accuracy = train(Path(folder) / f"{precision}_{seed}", data, precision, seed, args)
                curves[precision].append(losses)
                accuracies[precision].append(accuracy)
                print(
                    f"seed {seed} {precision:15} {' '.join(f'{loss:.4f}' for loss in losses)}  accuracy {accuracy:.4f}"
                )
    settings = {"encoder": args.encoder, "epochs": args.epochs, "seeds": args.seeds}
    last = {precision: [losses[-1] for losses in found] for precision, found in curves.items()}
    aim = Aim("mixed_bfloat16", "float32", "<= 1.01")
    print_comparison("last training loss of the pretraining", settings, "MSE", last, [aim])
    print_comparison("test accuracy", settings, "", accuracies, [aim._replace(wanted="")])
    points = {
        precision: {epoch: list(values) for epoch, values in enumerate(zip(*found, strict=True), 1)}
        for precision, found in curves.items()
    }
    print(
        json.dumps(
            {"title": "pretraining loss", "settings": settings, "unit": "MSE", "along": "epoch", "points": points}
        )
    )


if __name__ == "__main__":
    main()
