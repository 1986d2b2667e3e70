"""The messages that docs/troubleshooting.md quotes are those of the code, and every part of the code that refuses has one."""

import ast
import re
from functools import cache
from pathlib import Path

from pages_text import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
PACKAGE = ROOT / "tfinpaint"
OF_OTHERS = "Messages of other programs"  # the section whose messages do not come from the code here
ERRORS = {"UserError", "ConfigError", "UnreadableImageError", "CannotRunError", "_RefusedError"}


@cache
def quotes() -> tuple[str, ...]:
    """Return the messages in the first column of the tables; `…` in them stands for names and numbers."""
    text = PAGE.read_text().partition(f"## {OF_OTHERS}")[0]
    cells = re.findall(r"^\| (?!message )(.*?) \|", text, re.MULTILINE)
    return tuple(quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell))


def says(text: str, quote: str) -> bool:
    """Return whether a text has the words of a quote, in their order."""
    place = 0
    for part in (part.strip() for part in quote.split("…")):
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def is_telling(quote: str) -> bool:
    """Return whether a quote has words enough to tell one message from others."""
    return sum(len(part.strip()) for part in quote.split("…")) >= 15


def text_of(node: ast.AST) -> str:
    """Return the text of an expression as far as it is written there: `…` stands for the rest."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.BinOp(left=left, right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=body, orelse=other):
            return f"{text_of(body)}\n{text_of(other)}"
    return "…"


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def texts() -> dict[str, list[str]]:
    """Return the texts with several words in the code of each module, but for docstrings, and the lines of scripts/setup."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        inner = (
            child for node in nodes_of(path) if not isinstance(node, ast.Expr) for child in ast.iter_child_nodes(node)
        )
        written = {text_of(node) for node in inner if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp)}
        found[path.relative_to(PACKAGE).as_posix()] = sorted(text for text in written if " " in text)
    return found | {"scripts/setup": (ROOT / "scripts" / "setup").read_text().splitlines()}


def family_of(module: str) -> str:
    """Return the folder that a module is in, or the name of a command at the top."""
    return Path(module).parent.as_posix() if "/" in module else module.removesuffix(".py")


def refuses(path: Path) -> bool:
    calls = (node.exc for node in nodes_of(path) if isinstance(node, ast.Raise))
    return any(isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in ERRORS for call in calls)


def test_every_message_on_the_page_is_in_the_code():
    everything = [text for found in texts().values() for text in found]
    assert len(quotes()) > 80
    gone = [quote for quote in quotes() if not any(says(text, quote) for text in everything)]
    assert gone == [], "these messages have changed; change them in docs/troubleshooting.md, too"


def test_every_family_of_messages_is_on_the_page():
    refusing = {family_of(path.relative_to(PACKAGE).as_posix()) for path in PACKAGE.rglob("*.py") if refuses(path)}
    telling = [quote for quote in quotes() if is_telling(quote)]
    explained = {
        family_of(module)
        for module, found in texts().items()
        if any(says(text, quote) for text in found for quote in telling)
    }
    assert len(refusing) > 20
    assert refusing - explained == set(), "docs/troubleshooting.md explains no message of these folders and commands"
