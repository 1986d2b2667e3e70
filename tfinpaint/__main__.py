"""The console command: `tfinpaint COMMAND ...` is `python -m tfinpaint.COMMAND ...`."""

from __future__ import annotations

import importlib
import sys

from tfinpaint import cli, streams


def main() -> int:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in cli.PURPOSES:
        return importlib.import_module(f"tfinpaint.{command}").main(sys.argv[2:])
    streams.make_lenient()
    listed = "\n".join(f"  {name:10}{purpose}" for name, purpose in cli.PURPOSES.items())
    print(f"usage: tfinpaint COMMAND [options]\n\n{listed}\n\nEach takes --help.")
    return 0 if command in ("-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
