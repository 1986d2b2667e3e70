"""Write the features of images as NPZ, CSV or Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfinpaint.data.listing.listing import Listing
from tfinpaint.errors import UserError
from tfinpaint.storage.atomic import atomic_file, csv_writer
from tfinpaint.storage.safe_npz import write_npz

if TYPE_CHECKING:  # it loads TensorFlow
    from tfinpaint.probing.features import StageFeatures

FORMATS = (".npz", ".csv", ".parquet")


def check_table(path: Path) -> None:
    """Raise UserError if features cannot be written to a file of this name."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--output {path}: expected a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; name a file")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            raise UserError(
                f"--output {path}: Parquet needs pyarrow; run `pip install pyarrow`, or write .npz or .csv"
            ) from None


def write_table(path: Path, listing: Listing, features: StageFeatures) -> None:
    """Write names (relative to the folder), labels and features of all images; the suffix tells the format.

    NPZ: `stage2` to `stage5`, float32 [images, channels]; `names`, text [images]; and where there are classes `labels`,
    int32 [images], and `classes`, text [classes]. CSV: a row for each image: `name`, `class`, and a column for each
    number. Parquet: columns `name`, `class`, and a list of numbers for each stage.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_file(path) as partial:
        match path.suffix.lower():
            case ".npz":
                write_npz(partial, _arrays(listing, features))
            case ".csv":
                with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                    csv_writer(file).writerows(_lines(listing, features))
            case _:
                _write_parquet(partial, listing, features)


def _arrays(listing: Listing, features: StageFeatures) -> dict[str, np.ndarray]:
    arrays = {f"stage{stage}": values for stage, values in features.items()}
    arrays["names"] = np.array(list(listing.paths))
    if listing.classes:
        arrays |= {"labels": listing.labels, "classes": np.array(listing.classes)}
    return arrays


def _lines(listing: Listing, features: StageFeatures) -> Iterator[list[Any]]:
    has_classes = ["class"] if listing.classes else []
    numbers = [f"stage{stage}_{place}" for stage, values in features.items() for place in range(values.shape[1])]
    yield ["name", *has_classes, *numbers]
    for place, path in enumerate(listing.paths):
        label = [listing.classes[listing.labels[place]]] if listing.classes else []
        values = np.concatenate([of_stage[place] for of_stage in features.values()])
        yield [path, *label, *map(str, values)]  # as many digits as a float32 needs


def _write_parquet(path: Path, listing: Listing, features: StageFeatures) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {"name": pyarrow.array([os.fsencode(each).decode("utf-8", "replace") for each in listing.paths])}
    if listing.classes:
        columns["class"] = pyarrow.array([listing.classes[label] for label in listing.labels])
    for stage, values in features.items():
        columns[f"stage{stage}"] = pyarrow.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
