"""Split a folder or archive of class folders into training/ and testing/, or pack images into records.

usage: python -m tfinpaint.prepare SOURCE DEST [--test-fraction 0.1] [--seed 0] [--records [--no-split]]
                                   [--skip-empty-classes]
       python -m tfinpaint.prepare --verify RECORDS
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfinpaint.cli.arguments import make_parser
from tfinpaint.cli.command import run_command
from tfinpaint.config.sections import Distributed
from tfinpaint.data.ingest.copy import prepare
from tfinpaint.data.ingest.pack import pack, prepare_records, verify
from tfinpaint.distributed.launch import start_single_rank


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = make_parser("prepare")
        _add_arguments(parser)
        parsed = parser.parse_args(arguments)
        split = {key: value for key in ("test_fraction", "seed") if (value := getattr(parsed, key)) is not None}
        skip = {"skip_empty_classes": parsed.skip_empty_classes}
        if parsed.verify:
            if parsed.dest or parsed.records or parsed.no_split or parsed.skip_empty_classes or split:
                parser.error("--verify takes a folder and nothing else")
            print("\n".join(verify(parsed.source)))
            return
        if parsed.dest is None:
            parser.error("DEST is missing")
        if parsed.no_split and (split or not parsed.records):
            parser.error("--no-split goes with --records, without --test-fraction and --seed")
        if parsed.records:
            start_single_rank(Distributed())
        if parsed.no_split:
            lines = pack(parsed.source, parsed.dest, **skip).lines()
        else:
            run = prepare_records if parsed.records else prepare
            lines = run(parsed.source, parsed.dest, **split, **skip).lines()
        print("\n".join(lines))

    return run_command(command)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder of class folders, a zip or tar file of one, or `digits`"
    )
    parser.add_argument(
        "dest", type=Path, metavar="DEST", nargs="?", help="folder to write: training/<class>/ and testing/<class>/"
    )
    parser.add_argument(
        "--test-fraction", type=float, metavar="FRACTION", help="fraction of each class for testing/ (default: 0.1)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the random choice of images for testing/ (default: 0)"
    )
    parser.add_argument(
        "--records", action="store_true",
        help="pack the images into TFRecord shards; the same command resumes an interrupted one",
    )  # fmt: skip
    parser.add_argument(
        "--no-split", action="store_true", help="with --records: all images, with or without classes, into DEST"
    )
    parser.add_argument(
        "--skip-empty-classes", action="store_true",
        help="exclude class folders without a usable image, which are errors otherwise",
    )  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="compare the records in SOURCE with their checksums")


if __name__ == "__main__":
    sys.exit(main())
