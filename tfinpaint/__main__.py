"""The console command: `tfinpaint COMMAND ...` is `python -m tfinpaint.COMMAND ...`."""

from __future__ import annotations

import importlib
import sys

COMMANDS = ("prepare", "preview", "pretrain", "predict", "classify", "compare", "replay", "canary", "doctor")


def main() -> int:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in COMMANDS:
        return importlib.import_module(f"tfinpaint.{command}").main(sys.argv[2:])
    listed = "\n".join(f"  {name:10}{_purpose(name)}" for name in COMMANDS)
    print(f"usage: tfinpaint COMMAND [options]\n\n{listed}\n\nEach takes --help.")
    return 0 if command in ("-h", "--help") else 2


def _purpose(command: str) -> str:
    return (importlib.import_module(f"tfinpaint.{command}").__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
