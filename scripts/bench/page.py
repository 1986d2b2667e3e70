"""Write docs/benchmarks.md and its figures from the results of scripts/bench_all."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chapters import CHAPTERS, Chapter

Comparison = Mapping[str, Any]  # what `turns.print_comparison` prints, and the command

HEAD = """# Benchmarks

`python scripts/bench_all --peers PYTHON` has measured all of this and written this page; its head says what the peers
need. Every figure is that of the defaults unless its row says otherwise.

How to read the tables: each side ran in a process of its own, and the sides took turns, so that a noisy machine hit all
of them alike. A value is the **median of the turns (lowest to highest)**. A ratio is taken within each turn, so it can
differ from the ratio of the medians; it is **bold** where its aim was missed. More images per second are better, and so
are fewer seconds or bytes.
"""


def write_page(results: Mapping[str, Any], folder: Path) -> None:
    """Write the page and its figures for the chapters that have results."""
    parts = [HEAD]
    for name, chapter in CHAPTERS.items():
        if name in results:
            parts.append(_chapter(name, chapter, results[name], folder))
    (folder / "benchmarks.md").write_text("\n".join(parts))


def _chapter(name: str, chapter: Chapter, result: Mapping[str, Any], folder: Path) -> str:
    lines = [f"## {chapter.title}", "", chapter.text, ""]
    comparisons = result["comparisons"]
    curves = [each for each in comparisons if "along" in each]
    tables = [each for each in comparisons if "along" not in each]
    for title in dict.fromkeys(each["title"] for each in tables):
        lines += _table([each for each in tables if each["title"] == title])
    for curve in curves:
        encoder = curve["settings"].get("encoder", "")
        place = re.sub("[^a-z0-9]+", "_", f"{curve['along']} {encoder}".strip())
        path = folder / f"benchmarks_{name}_{place}.png"
        _draw(curve, path)
        lines += [f"![{curve['title']} {encoder}".rstrip() + f"]({path.name})", "", *_exponents(curve), ""]
    lines += ["```bash", *dict.fromkeys(each["command"] for each in comparisons), "```", "", _machine(result), ""]
    return "\n".join(lines)


def _table(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the rows of comparisons with one title: a column for each of them, a row for each side and each ratio."""
    first = comparisons[0]
    varied = [key for key in first["settings"] if len({str(each["settings"][key]) for each in comparisons}) > 1]
    fixed = [f"{key} {value}" for key, value in first["settings"].items() if key not in varied]
    heads = [", ".join(f"{key} {each['settings'][key]}" for key in varied) or first["unit"] for each in comparisons]
    title = ", ".join([f"**{first['title']}**", first["unit"]]).removesuffix(", ")
    lines = [title + (f" ({', '.join(fixed)})" if fixed else ""), ""]
    lines += ["| | " + " | ".join(heads) + " | aim |", "|---|" + "---|" * (len(heads) + 1)]
    for side in dict.fromkeys(side for each in comparisons for side in each["values"]):
        cells = [with_range(each["values"][side]) if side in each["values"] else "" for each in comparisons]
        lines.append(f"| {side} | " + " | ".join(cells) + " | |")
    names = dict.fromkeys(ratio["ratio"] for each in comparisons for ratio in each["ratios"])
    for name in names:
        found = [next((r for r in each["ratios"] if r["ratio"] == name), None) for each in comparisons]
        wanted = dict.fromkeys(ratio["wanted"] for ratio in found if ratio and ratio["wanted"])
        lines.append(f"| {name} | " + " | ".join(_ratio(each) for each in found) + f" | {', '.join(wanted)} |")
    return [*lines, ""]


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return ""
    text = with_range(ratio["values"])
    return text if is_reached(statistics.median(ratio["values"]), ratio["wanted"]) else f"**{text}**"


def is_reached(value: float, wanted: str) -> bool:
    """Return whether a value reaches an aim, such as ">= 1.5"; True for no aim."""
    if not wanted:
        return True
    sign, bound = wanted.split()[:2]
    return value >= float(bound) if sign == ">=" else value <= float(bound)


def with_range(values: Sequence[float]) -> str:
    """Return the median of values and their range, with three significant digits."""
    shown = [three_digits(value) for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})" if len(values) > 1 else shown[0]


def three_digits(value: float) -> str:
    """Return a number with three significant digits, or whole above 1,000."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(2 - math.floor(math.log10(abs(value))), 0)}f}"


def exponent(places: Sequence[float], values: Sequence[float]) -> float:
    """Return b of the power law value = a place^b: the slope of the least-squares line through the logarithms."""
    x, y = ([math.log(each) for each in side] for side in (places, values))
    return statistics.linear_regression(x, y).slope


def _exponents(curve: Comparison) -> list[str]:
    if not curve["unit"].startswith("images/s"):
        return []
    parts = []
    for side, points in curve["points"].items():
        medians = [statistics.median(values) for values in points.values()]
        if len(medians) > 2:
            parts.append(f"{side} {exponent([float(place) for place in points], medians):.2f}")
    return [f"Fitted exponents of {curve['unit']} over {curve['along']}: {', '.join(parts)}."] if parts else []


def _draw(curve: Comparison, path: Path) -> None:
    """Draw the medians of each side over what was varied, on logarithmic axes, with the range as error bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for side, points in curve["points"].items():
        medians = [statistics.median(values) for values in points.values()]
        below = [m - min(values) for m, values in zip(medians, points.values(), strict=True)]
        above = [max(values) - m for m, values in zip(medians, points.values(), strict=True)]
        axes.errorbar([float(place) for place in points], medians, [below, above], marker="o", capsize=3, label=side)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=curve["along"],
        ylabel=curve["unit"],
        title=f"{curve['title']} {curve['settings'].get('encoder', '')}".rstrip(),
    )
    places = [float(place) for points in curve["points"].values() for place in points]
    shown = sorted(set(places))
    axes.set_xticks(shown, [f"{place:g}" for place in shown], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def _machine(result: Mapping[str, Any]) -> str:
    about = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in {**about["versions"], **about.get("peers", {})}.items())
    instructions = ", ".join(about["instructions"]) or "no vector instructions that matter here"
    cores = f"{about['cores']} core" + "s" * (about["cores"] > 1)
    parts = [about["processor"], cores, f"{about['memory_gb']} GB", instructions]
    return f"Measured on {result['date']}: {', '.join(parts)}; {versions}."
