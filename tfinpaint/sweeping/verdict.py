"""Say in sentences what a sweep has found, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from tfinpaint.data.listing.duplicates import count_duplicates
from tfinpaint.sweeping.plan import METHODS, Method, Plan
from tfinpaint.sweeping.rows import Row
from tfinpaint.sweeping.statistics import CONFIDENCE, PAIRS, Difference
from tfinpaint.system.wording import percent

_SURE = f"{percent(CONFIDENCE)} interval"
_ENCODERS: dict[Method, str] = {"fine_tuned": "the fine-tuned encoder", "pretrained_frozen": "the frozen encoder"}


def verdict(
    plan: Plan, rows: Sequence[Row], found: Sequence[Difference], distinct: Sequence[Difference] = ()
) -> list[str]:
    """Return sentences: whether pretraining pays, then the differences at each share, then what limits them.

    Args:
        rows: the finished rows, and `found` their differences.
        distinct: the differences without the near-duplicates of training images, where there are any.
    """
    return [
        _whether_it_pays([each for each in found if each.pair[1] == "from_scratch"]),
        *(describe_difference(each) for pair in PAIRS for each in found if each.pair == pair),
        *_without_copies(plan, distinct),
        *_limits(plan, rows),
    ]


def _whether_it_pays(found: Sequence[Difference]) -> str:
    """Return whether a pretrained encoder, fine-tuned or frozen, is more accurate than training from scratch."""
    if not found:
        return "No share of the labels has been fine-tuned and trained from scratch so far, so there is no result yet."
    shares = list(dict.fromkeys(each.share for each in found))
    better = [each for each in found if each.interval.low > 0]
    pays = [share for share in shares if any(each.share == share for each in better)]
    worse = [share for share in shares if all(each.interval.high < 0 for each in found if each.share == share)]
    unclear = [share for share in shares if share not in pays and share not in worse]
    parts = []
    if better:
        parts.append(
            f"Pretraining pays with {_shares(pays)} of the labels: there {_subject(better, pays)} more accurate than "
            f"training from scratch, and the {_SURE} of the difference excludes 0"
        )
    if worse and better:
        parts.append(f"with {_shares(worse)} training from scratch is more accurate")
    elif worse:
        parts.append(
            f"Pretraining does not pay with {_shares(worse)} of the labels: there training from scratch is more "
            f"accurate, and the {_SURE} of the difference excludes 0"
        )
    if unclear:
        start = "with" if parts else "Pretraining is not shown to pay: with"
        parts.append(f"{start} {_shares(unclear)} of the labels the difference may be due to chance")
    return "; ".join(parts) + "."


def _subject(better: Sequence[Difference], shares: Sequence[float]) -> str:
    """Return which encoders are better, each with its shares of the labels where these are not all of `shares`."""
    named = []
    for method, name in _ENCODERS.items():
        own = [each.share for each in better if each.pair[0] == method]
        if own:
            named.append(name if own == list(shares) else f"{name} (with {_shares(own)})")
    return " and ".join(named) + (" is" if len(named) == 1 else " are")


def _shares(shares: Sequence[float]) -> str:
    return _listed([percent(share) for share in shares])


def describe_difference(each: Difference) -> str:
    """Return a sentence about two methods at a share of the labels: accuracies, difference, interval and draws."""
    ours, theirs = (METHODS[method] for method in each.pair)
    interval, count = each.interval, len(each.draws)
    points = [100 * value for value in (interval.mean, interval.low, interval.high)]
    above = sum(value > 0 for value in each.draws)
    draws = f"; above in {above} of {count} draws" if count > 1 else "; a single draw"
    return (
        f"{percent(each.share)} of the labels ({each.labels:,}): {ours} {each.ours:.3f}, {theirs} {each.theirs:.3f}, "
        f"difference {points[0]:+.1f} points ({_SURE} {points[1]:+.1f} to {points[2]:+.1f}{draws})."
    )


def _without_copies(plan: Plan, distinct: Sequence[Difference]) -> list[str]:
    """Return a sentence about the first pair without the near-duplicates of training images; none without any."""
    told = [
        f"{100 * each.interval.mean:+.1f} points with {percent(each.share)} of the labels"
        for each in distinct
        if each.pair == PAIRS[0]
    ]
    if not told:
        return []
    names = " and ".join(METHODS[method] for method in PAIRS[0])
    counted = count_duplicates(plan.copies, len(plan.test))
    return [f"{counted}. Without these the difference of {names} is {_listed(told)}."]


def _limits(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Return sentences about what the results do not cover."""
    lines = [f"{line}." for line in plan.left_out]
    wanted = {(cell.share, cell.number, method) for cell, method in plan.rows()}
    if missing := wanted - {(row.share, row.draw, row.method) for row in rows}:
        lines.append(
            f"The sweep is not finished: {len(missing)} of {len(wanted)} rows are missing; the same command continues."
        )
    edges = [row for row in rows if row.at_edge]
    for method in dict.fromkeys(row.method for row in edges):
        count, of = sum(row.method == method for row in edges), sum(row.method == method for row in rows)
        option = "--scratch-rates" if method == "from_scratch" else "--rates"
        lines.append(
            f"{METHODS[method]}: in {count} of {of} rows the chosen learning rate is the smallest or the largest that "
            f"was tried; a wider grid ({option}, in another folder) may raise its accuracy."
        )
    unvalidated = [cell for cell in plan.cells if cell.unvalidated]
    if unvalidated:
        shares = list(dict.fromkeys(percent(cell.share) for cell in unvalidated))
        classes = list(dict.fromkeys(name for cell in unvalidated for name in cell.unvalidated))
        some = ", ".join(classes[:5]) + ", ..." * (len(classes) > 5)
        lines.append(
            f"With {_listed(shares)} of the labels no image of class {some} could be kept out for validation, because "
            "there is a single labelled one."
        )
    if fewer := list(dict.fromkeys(percent(c.share) for c in plan.cells if c.labelled < plan.labels_of_choice)):
        lines.append(
            "The pretrained encoder is the one that the probe in pretraining prefers, by about "
            f"{plan.labels_of_choice:,} labelled images: more than there are with {_listed(fewer)} of the labels. "
            "Unless its epoch was fixed beforehand, the methods with pretraining owe something to these labels there; "
            "--weights can name a checkpoint of a fixed epoch."
        )
    draws = len({row.draw for row in rows})  # of earlier calls too, with more seeds
    over = f"the test images and the {draws} draws of labels" if draws > 1 else "the test images of a single draw"
    lines.append(
        f"Accuracies are those of {len(plan.test):,} test images, on which nothing was chosen. The intervals are of a "
        f"bootstrap over {over}."
    )
    return lines


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
