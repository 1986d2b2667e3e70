"""Read the commands, the Python and the links of the pages at the top level and in docs/."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = ("README", "CONTRIBUTING", "RELEASING", "SECURITY")
PAGES = [*(ROOT / f"{name}.md" for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"\w+=")
_SETS = (re.compile(r'^(\w+)="?([^"\n]*)"?$', re.MULTILINE), re.compile(r"^for (\w+) in (\S+) .*; do$", re.MULTILINE))


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of some languages, in order."""
    return [text for language, text in _BLOCK.findall(page.read_text()) if language in languages]


def command_lines(page: Path) -> list[list[str]]:
    """Return the words of each command in the shell blocks of a page, and of each that a cell of a notebook starts.

    Comments and assignments of variables in front are left out; `python -m tfinpaint.NAME` becomes `tfinpaint NAME`.
    Variables have their values; that of a loop has its first one.
    """
    text = "\n".join(blocks(page, "bash", "text")).replace("\\\n", " ")
    for name, value in [found.groups() for sets in _SETS for found in sets.finditer(text)]:
        text = text.replace(f"${name}", value)
    text = re.sub(r"^(for .*; do|done)$", "", text, flags=re.MULTILINE)
    lines = (shlex.split(line.removeprefix("!"), comments=True) for line in text.splitlines())
    return [words for line in lines if (words := _without_prefix(line))]


def _without_prefix(words: list[str]) -> list[str]:
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    for place in reversed(range(len(words) - 1)):  # an image of Docker may be called tfinpaint, too
        if words[place] == "-m" and words[place + 1].startswith("tfinpaint."):
            return ["tfinpaint", words[place + 1].removeprefix("tfinpaint."), *words[place + 2 :]]
        if Path(words[place]).name == "tfinpaint" and words[place + 1].isidentifier():
            return ["tfinpaint", *words[place + 1 :]]
    return words


def commands_in_sentences(page: Path) -> Iterator[str]:
    """Yield the name behind each `tfinpaint NAME` in the text."""
    yield from re.findall(r"`tfinpaint (?!needs )([a-z]\w*)", page.read_text())  # but for a message


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield (file, anchor) of each link to a file of the project; the anchor may be empty."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield ((page.parent / path).resolve() if path else page), anchor


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(_BLOCK, "", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
