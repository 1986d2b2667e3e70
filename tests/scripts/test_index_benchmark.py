"""The benchmark of millions of names replaces functions of the package, which must be there under their names."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "scripts" / "bench" / "index.py"


def test_imagined_folders_are_listed():
    command = [sys.executable, str(PROGRAM), "--images", "6000", "--folders", "3", "--files", "0", "--ranks"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed, index = map(json.loads, done.stdout.splitlines())
    assert (listed["what"], listed["images"]) == ("list and write the index", 6000)
    assert index["mib"] > 0.1
