"""The import rule: imports go down only, and Horovod and the wire are touched in one place."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tfinpaint"

# Rows from the bottom; a module may import from lower rows, and from its own package.
ROWS = [
    {
        "activity",
        "errors",
        "version",
        "files",
        "hdf5",
        "hdf5_texts",
        "hdf5_output",
        "room",
        "npz",
        "config",
        "config_transforms",
        "config_checks",
        "config_errors",
        "config_hints",
        "config_file",
        "seed_only",
        "run_folder",
        "dist",
        "watch",
        "rendezvous",
        "machine",
        "processes",
        "installation",
        "startup",
        "streams",
    },
    {"data", "models"},
    {
        "transfer",
        "legacy_weights",
        "keras3_weights",
        "keras_files",
        "checkpoint",
        "commits",
        "report",
        "measurements",
        "baselines",
        "restoration",
        "photo",
        "photo_output",
    },
    {"train", "cli", "command_line", "elastic"},
    {
        "pretrain",
        "classify",
        "prepare",
        "preview",
        "predict",
        "compare",
        "replay",
        "canary",
        "doctor",
        "__main__",
        "__init__",
    },
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


# What ruff's rules do not see: each reads files that others may have written, and is to be found in one place.
GUARDED = {
    "Image.open": {"decode.py", "tensorboard.py", "animation.py"},  # the last two open pictures that the run has made
    "h5py.File": {"hdf5.py", "checkpoint.py", "predictions.py"},  # the last two open what they write
    "np.load": {"records.py"},
    "zipfile.ZipFile": {"archives.py", "npz.py", "keras3_weights.py"},
    "tarfile.TarFile": {"archives.py"},
    "gzip.GzipFile": {"archives.py"},
    "yaml.load": {"config_file.py"},
}
PICKLES = ("np.load", "np.save", "npy.read_array", "npy.write_array")
NEVER = {"load_model", "model_from_json", "model_from_config", "enable_unsafe_deserialization", "extract", "extractall"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_files_of_others_are_opened_in_few_places():
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for call in calls(path):
            found.setdefault(ast.unparse(call.func), set()).add(path.name)
    assert {name: wrong for name, files in GUARDED.items() if (wrong := found.get(name, set()) - files)} == {}


def test_no_call_opens_a_pickle_or_builds_what_a_file_names():
    wrong = []
    scripts = set(PACKAGE.parent.glob("scripts/*.py")) - {
        PACKAGE.parent / "scripts" / "hostile_inputs.py"
    }  # makes them
    for path in [*PACKAGE.rglob("*.py"), *scripts]:
        for call in calls(path):
            keywords = {each.arg: ast.unparse(each.value) for each in call.keywords}
            name = ast.unparse(call.func)
            if name in PICKLES and keywords.get("allow_pickle") != "False":
                wrong.append(f"{path.name}:{call.lineno}: {name} without allow_pickle=False")
            if name.startswith("np.savez"):  # older NumPy has no allow_pickle there
                wrong.append(f"{path.name}:{call.lineno}: {name}, not npz.write")
            if name.rpartition(".")[2] in NEVER or keywords.get("safe_mode") == "False":
                wrong.append(f"{path.name}:{call.lineno}: {name}")
    assert wrong == []
