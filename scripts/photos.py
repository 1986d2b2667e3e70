"""Write small square cuts of photographs that come with scikit-image, in the public domain or CC0, as PNG files.

usage: python scripts/photos.py runs/data/photos

docs/inpainting.md shows restorations of them: unlike Natural Images they may be shown anywhere.
"""

import argparse
from pathlib import Path

from PIL import Image
from skimage import data

SIDE = 30  # pixels
CUTS = {
    "astronaut": data.astronaut(),
    "face": data.astronaut()[10:210, 120:320],
    "cat": data.chelsea()[:, 75:375],
    "coffee": data.coffee()[:, 100:500],
    "rocket": data.rocket()[20:420, 150:550],
}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("folder", type=Path, help="where to write them")
    folder = cli.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in CUTS.items():
        # As coarse as the copy of Natural Images that the run was trained on.
        small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(folder / f"{name}.png")
    print(f"{len(CUTS)} photographs: {folder}")


if __name__ == "__main__":
    main()
