"""The photos that the tests of `init` and `run` work on, and the project that `init` makes of them."""

from pathlib import Path

PHOTOS = {"cat": 65, "dog": 65, "rare": 3}  # of `my photos`
PROJECT = Path("runs") / "my photos"
FEW = "Too few images to learn or to test a class: rare (2 training, 1 testing); add some, or expect nothing of it"
