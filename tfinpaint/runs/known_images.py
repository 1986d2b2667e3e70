"""The images of a stage of a project when it began, noted in its run folder. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

from tfinpaint.config.schema import Config
from tfinpaint.data.listing.listing import image_names
from tfinpaint.layout import ENVIRONMENT
from tfinpaint.storage.safe_json import read_json
from tfinpaint.system.wording import counted

IMAGES = "images"  # the entry of environment.json

Known = dict[str, dict[str, Any]]  # "training" or "test" -> number of images, and a digest of their names


def describe_images(config: Config) -> Known:
    """Return what identifies the images that a configuration names, as they are now."""
    folders = {"training": config.data.input_path, "test": config.data.test_input_path}
    found = {side: image_names(folder) for side, folder in folders.items() if folder and folder.is_dir()}
    return {side: {"number": len(names), "digest": names.digest()} for side, names in found.items()}


def other_images(run: Path, config: Config) -> str:
    """Return which images a run began with, if they are not those that there are now; "" where they are, or unknown.

    Such as "138 training images and 61 test images then, 150 training images and 66 test images now".
    """
    environment = read_json(run / ENVIRONMENT)
    before = environment.get(IMAGES) if isinstance(environment, dict) else None
    if not _is_known(before) or before == (now := describe_images(config)):
        return ""
    then, there = _numbers(before), _numbers(now)
    return f"{then} then, {there} now" if then != there else f"{then} then and now, but of other names"


def _is_known(found: Any) -> TypeGuard[Known]:
    facts = found.values() if isinstance(found, dict) else [None]
    return all(isinstance(each, dict) and isinstance(each.get("number"), int) for each in facts)


def _numbers(known: Known) -> str:
    return " and ".join(counted(facts["number"], f"{side} image") for side, facts in known.items()) or "none"
