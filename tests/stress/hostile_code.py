"""Code that no command may run: what a pickle and a network file would call."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from good_inputs import Good


def system(good: Good) -> dict[str, Any]:
    return {
        "module": "os",
        "class_name": "system",
        "config": f"touch {good.canaries}/network",
        "registered_name": "os>system",
    }


def code(good: Good) -> dict[str, Any]:
    return {"class_name": "__lambda__", "config": {"code": f"open({str(good.canaries / 'lambda')!r}, 'w')"}}


class Payload:
    """What a pickle runs when it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def payload(canary: Path) -> bytes:
    return pickle.dumps(Payload(canary))
