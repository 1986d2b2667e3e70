"""Judge the features of an encoder from a Python program, as `tfinpaint probe` does."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfinpaint.checkpoint.find import find_weights, run_folder_of
from tfinpaint.cli.encoder_options import make_output_folder, require_single_process
from tfinpaint.config.encoders import LEAST_SIDE
from tfinpaint.config.sections import Distributed
from tfinpaint.config.transforms import MAX_SIDE
from tfinpaint.data.listing.listing import list_class_folders
from tfinpaint.distributed.launch import start_single_rank
from tfinpaint.errors import UserError
from tfinpaint.interface.process import FilePath, as_path, call_text, one_call
from tfinpaint.interface.results import ProbeResult
from tfinpaint.layout import PROBE, PROBE_JSON
from tfinpaint.storage.safe_json import read_json

if TYPE_CHECKING:  # it loads TensorFlow
    from tfinpaint.probing.encoder import Source

log = logging.getLogger(__name__)

SHARES = (1.0, 10.0, 100.0)
MOST_REPEATS = 100


def probe(
    encoder: FilePath,
    data: FilePath,
    *,
    test: FilePath | None = None,
    shares: Sequence[float] = SHARES,
    repeats: int = 3,
    compare: Sequence[FilePath] = (),
    size: int | None = None,
    imagenet: bool = False,
    output: FilePath | None = None,
    verbose: bool = True,
) -> ProbeResult:
    """Judge an encoder's features by simple classifiers on few labels, beside random encoders, raw pixels and HOG.

    Args:
        encoder: a run folder (its best checkpoint, else the newest), a checkpoint folder, `encoder.weights.h5`, or a
            file of ResNet50 that Keras has saved.
        data: a folder of class folders with images.
        test: a folder of test images with the same classes; None: a fifth of each class.
        shares: shares of the labels in percent, above 0, at most 100.
        repeats: draws of labels for each share below 100 percent, 1 to 100.
        compare: further encoders.
        size: side of the images in pixels that a weight file receives; runs know theirs.
        imagenet: weight files of Keras receive what Keras' ImageNet weights need.
        output: folder for the report; None: `probe/` in the run folder, for other weights in the working directory.
        verbose: print what is logged.

    Raises:
        UserError: the encoder or the images cannot be used, or the output cannot be written.
    """
    require_single_process("probe")
    if not shares or not all(0 < share <= 100 for share in shares):
        raise UserError(f"shares: {list(shares)}: expected percentages above 0, at most 100")
    _check_whole("repeats", repeats, 1, MOST_REPEATS)
    if size is not None:
        _check_whole("size", size, LEAST_SIDE, MAX_SIDE)
    others, folder = [as_path(each) for each in compare], as_path(output) if output is not None else None
    tested = as_path(test) if test is not None else None
    options = {
        "test": test, "shares": tuple(shares), "repeats": repeats, "compare": tuple(compare), "size": size,
        "imagenet": imagenet, "output": output,
    }  # fmt: skip
    parameters = inspect.signature(probe).parameters
    given = {name: value for name, value in options.items() if value != parameters[name].default}
    call = call_text("probe", {"encoder": encoder, "data": data, **given})
    with one_call(verbose):
        return run_probe(
            as_path(encoder), as_path(data), tested, shares=sorted(shares), repeats=repeats, compare=others, size=size,
            imagenet=imagenet, output=folder, command=call,
        )  # fmt: skip


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, Integral) or not least <= int(value) <= most:
        raise UserError(f"{name}: {value}: expected a whole number, {least} to {most}")


def run_probe(
    encoder: Path,
    data: Path,
    test: Path | None,
    *,
    shares: Sequence[float],
    repeats: int,
    compare: Sequence[Path],
    size: int | None,
    imagenet: bool,
    output: Path | None,
    command: str,
) -> ProbeResult:
    """Probe an encoder and write the report.

    Args:
        command: that the probe was started with, for the report; the others as `probe` takes them.

    Raises:
        UserError: as `probe`.
    """
    if len({encoder, *compare}) <= len(compare):
        raise UserError("--compare: names an encoder twice")
    folder = output or (run_folder_of(encoder) or Path()) / PROBE
    _check_output(folder, data, test)
    for path in (encoder, *compare):  # what is missing is refused before TensorFlow is loaded
        find_weights(path)
    classes = list_class_folders(data).classes
    if test is not None:
        list_class_folders(test, classes)
    start_single_rank(Distributed())
    from tfinpaint.probing.images import open_labelled
    from tfinpaint.probing.page import write_report
    from tfinpaint.probing.study import study

    source, *others = _load_encoders(encoder, compare, size, imagenet=imagenet)
    images = open_labelled(data, test)
    make_output_folder(folder, folder)
    found = study(source, others, images, [share / 100 for share in shares], repeats)
    try:
        write_report(folder, source, found, command)
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written: {error.strerror or error}") from None
    return ProbeResult(folder, tuple(found.sentences), read_json(folder / PROBE_JSON), tuple(found.rows), source.model)


def _load_encoders(encoder: Path, compare: Sequence[Path], size: int | None, *, imagenet: bool) -> list[Source]:
    """Load the encoder, then those to compare with, which take images of the same size if they can.

    Raises:
        UserError: one cannot be used, or `imagenet` is true and Keras has saved none of them.
    """
    from tfinpaint.probing.encoder import load_encoder

    source = load_encoder(encoder, (size, size) if size else None, imagenet=imagenet)
    others = [load_encoder(path, source.shape[:2], imagenet=imagenet, required=False) for path in compare]
    if imagenet and not any(each.is_keras for each in (source, *others)):
        raise UserError("--imagenet: is for weight files that Keras has saved; none of the encoders is one")
    for note in [note for each in (source, *others) for note in each.notes]:
        log.info(note)
    return [source, *others]


def _check_output(folder: Path, *among: Path | None) -> None:
    """Raise UserError if the output would be a file, or lie among the images, where its figures would be images too."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: is a file; name a folder")
    for images in among:
        if images is not None and folder.resolve().is_relative_to(images.resolve()):
            raise UserError(f"--output {folder}: lies in {images}, among the images; name another folder")
