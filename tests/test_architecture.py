"""The import rule: imports go down only, and Horovod and the wire are touched in one place."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tfinpaint"

# Rows from the bottom; a module may import from lower rows, and from its own package.
ROWS = [
    {
        "errors",
        "version",
        "files",
        "config",
        "config_transforms",
        "config_checks",
        "config_file",
        "seed_only",
        "dist",
        "watch",
        "machine",
        "processes",
        "installation",
    },
    {"data", "models"},
    {"transfer", "legacy_weights", "checkpoint", "report", "measurements", "baselines", "restoration"},
    {"train", "cli"},
    {"pretrain", "classify", "prepare", "preview", "predict", "compare", "canary", "doctor", "__main__", "__init__"},
]
ROW = {name: number for number, names in enumerate(ROWS) for name in names}


def imported_modules(path: Path) -> set[str]:
    """Every imported module, dotted; `from tfinpaint import x` counts as tfinpaint.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "tfinpaint"}
    return found


def unit(path: Path) -> str:
    """The row's name of a file: its subpackage, or its own name at the top."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def test_imports_go_down_only():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        here = unit(path)
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] != "tfinpaint" or len(parts) < 2 or parts[1] == "__version__" or parts[1] == here:
                continue
            there = parts[1]
            sideways = ROW[here] == ROW[there] and here in {"data", "models"}
            if ROW[there] > ROW[here] or sideways or (there == "dist" and ROW[here] < ROW["train"]):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert wrong == []


def test_horovod_is_imported_in_one_place():
    users = {
        path.name for path in PACKAGE.rglob("*.py") if any(m.startswith("horovod") for m in imported_modules(path))
    }
    assert users == {"dist.py"}
