"""The recipes: the configuration files of configs/, which an installed package contains as tfinpaint/recipes."""

from __future__ import annotations

from pathlib import Path

from tfinpaint.errors import UserError
from tfinpaint.storage.atomic import write_text

FOLDER = Path("configs")  # below the working directory, as commands and pages name it

_PACKAGE = Path(__file__).parents[1]


def recipes() -> dict[str, Path]:
    """Return all recipes, by their paths below `FOLDER`, such as demo/pretrain.yaml."""
    packaged = _PACKAGE / "recipes"  # made by setup.py; a checkout has configs/ alone
    root = packaged if packaged.is_dir() else _PACKAGE.parent / "configs"
    return {path.relative_to(root).as_posix(): path for path in sorted(root.glob("*/*.yaml"))}


def write_recipes() -> list[Path]:
    """Write the recipes that are missing in `FOLDER`, and return their paths; what is there stays as it is.

    Raises:
        UserError: They cannot be written.
    """
    missing = {FOLDER / name: path for name, path in recipes().items() if not (FOLDER / name).exists()}
    try:
        for path, source in missing.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, source.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}; call it from another folder") from None
    return list(missing)
