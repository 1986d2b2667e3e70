"""Say which file a checkpoint has lost, and which one was saved before it. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfinpaint.errors import UserError
from tfinpaint.system.paths import display_path


def refuse_incomplete(checkpoint: Path, one_of: Sequence[str], kept: Sequence[Path]) -> None:
    """Raise UserError where a checkpoint folder has none of these files.

    Args:
        one_of: names of files, of which the caller needs one.
        kept: the checkpoints of its run, oldest first.
    """
    if any((checkpoint / name).is_file() for name in one_of):
        return
    names = [each.name for each in kept]
    earlier = kept[: names.index(checkpoint.name)] if checkpoint.name in names else ()
    whole = [each for each in earlier if any((each / name).is_file() for name in one_of)]
    before = f"the checkpoint before it is {display_path(whole[-1])}" if whole else "there is no checkpoint before it"
    remedy = "bring the file back, or use that one" if whole else "bring the file back"
    raise UserError(
        f"{display_path(checkpoint)}: {' and '.join(one_of)} {'is' if len(one_of) == 1 else 'are'} missing; "
        f"{before}; {remedy}"
    )
