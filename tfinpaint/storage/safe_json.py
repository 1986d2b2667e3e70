"""Read JSON files within bounds."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 2**24


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Return the value of a JSON file; None where it is missing, larger than `most_bytes`, or not JSON."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > most_bytes:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
