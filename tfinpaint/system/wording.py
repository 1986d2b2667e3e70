"""Word numbers and shares of things in messages."""

from __future__ import annotations


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number with its noun, such as "1 image" or "1,200 images".

    Args:
        things: the plural, where it is not `thing` with an s.
    """
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def percent(share: float) -> str:
    """Return a share, such as one of the labels, in percent: "10 %"."""
    return f"{100 * share:g} %"
