"""Split a folder or zip of class folders into training/ and testing/.

usage: python -m tfinpaint.prepare SOURCE DEST [--test-fraction 0.1] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint import cli
from tfinpaint.data import prepare


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = argparse.ArgumentParser(prog="tfinpaint prepare", description=__doc__.splitlines()[0])
        parser.add_argument("source", type=Path, help="folder of class folders, a zip of one, or `digits`")
        parser.add_argument("dest", type=Path, help="folder to make; gets training/<class>/ and testing/<class>/")
        parser.add_argument("--test-fraction", type=float, default=0.1, help="share of each class for testing/")
        parser.add_argument("--seed", type=int, default=0, help="which images go to testing/")
        parsed = parser.parse_args(arguments)
        report = prepare.prepare(parsed.source, parsed.dest, test_fraction=parsed.test_fraction, seed=parsed.seed)
        print("\n".join(report.lines()))

    return cli.guard(command)


if __name__ == "__main__":
    sys.exit(main())
