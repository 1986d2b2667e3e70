"""The import rule: imports go down only, rooms in one row do not see each other, and each guarded call has its place."""

import ast
from pathlib import Path

from tfinpaint.cli.purposes import PURPOSES

PACKAGE = Path(__file__).parents[1] / "tfinpaint"

COMMANDS = [
    *("demo", "init", "run", "pretrain", "classify", "prepare", "preview", "predict"),
    *("evaluate", "export", "probe", "sweep"),
    *("features", "runs", "compare", "config", "replay", "canary", "doctor"),
]
# Rows from the top. A module may import from its own room and from the rows below, never from another room of its row.
ROWS = [
    ["__init__", "__main__", *COMMANDS],
    ["project"],
    ["sweeping", "exporting"],
    ["interface"],
    ["runs"],
    ["cli"],
    ["probing"],
    ["train", "checkpoint", "inpainting"],
    ["data", "models", "report", "distributed"],
    ["config"],
    ["storage"],
    ["system"],
    ["errors", "version", "batch", "layout"],
]
# `config` is a room, whose row counts; its command is config/__main__.py.
ROW = {room: number for number, rooms in enumerate(ROWS) for room in rooms}


def imported_modules(path: Path) -> set[str]:
    """Return every imported module, dotted; `from tfinpaint import x` counts as tfinpaint.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "tfinpaint"}
    return found


def modules() -> dict[str, Path]:
    """Return all modules of the package, by their paths below it."""
    return {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}


def room_of(name: str) -> str:
    """Return the room that a module is in, or the name of the module at the top; a `__main__` is a command."""
    if name.endswith("/__main__.py"):
        return "__main__"
    return name.partition("/")[0].removesuffix(".py")


def test_imports_go_down_only():
    wrong = []
    for name, path in modules().items():
        here = room_of(name)
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] != "tfinpaint" or len(parts) < 2 or parts[1] in (here, "__version__"):
                continue
            if ROW[parts[1]] <= ROW[here]:
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def test_every_command_is_known_to_the_console_and_stands_in_the_readme():
    readme = (PACKAGE.parent / "README.md").read_text()
    assert set(PURPOSES) == set(COMMANDS)
    assert [name for name in COMMANDS if f"`{name}" not in readme] == []


def test_horovod_is_imported_in_one_room():
    users = {name for name, path in modules().items() if any(m.startswith("horovod") for m in imported_modules(path))}
    assert {room_of(name) for name in users} == {"distributed"}


def test_what_checks_a_configuration_loads_no_tensorflow():
    rooms = ("config", "storage", "system", "errors", "version", "data/images", "data/listing")
    wrong = [
        name
        for name, path in modules().items()
        if name.startswith(rooms) and {"tensorflow", "keras"} & {m.partition(".")[0] for m in imported_modules(path)}
    ]
    assert wrong == []


# What ruff's rules do not see: each call reads or writes files in a way that is to be found in few places, all named.
GUARDED = {
    "Image.open": {
        "data/images/decode.py",
        "report/tensorboard.py",
        "report/animation.py",
        "report/html.py",
    },  # last 3: own
    "h5py.File": {"storage/safe_hdf5.py", "checkpoint/store.py", "report/predictions.py"},  # the last two: own files
    "np.load": {"data/records/reader.py"},
    "zipfile.ZipFile": {"data/ingest/archives.py", "storage/safe_npz.py", "checkpoint/keras3.py"},
    "tarfile.TarFile": {"data/ingest/archives.py"},
    "gzip.GzipFile": {"data/ingest/archives.py"},
    "yaml.load": {"config/loader.py"},
}
PICKLES = ("np.load", "np.save", "npy.read_array", "npy.write_array")
NEVER = {"load_model", "model_from_json", "model_from_config", "enable_unsafe_deserialization", "extract", "extractall"}


OWN_FILES = {("formats.py", "keras.saving.load_model")}  # what this process has just written, to check it


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_files_of_others_are_opened_in_few_places():
    found: dict[str, set[str]] = {}
    for name, path in modules().items():
        for call in calls(path):
            found.setdefault(ast.unparse(call.func), set()).add(name)
    assert {call: found.get(call, set()) for call in GUARDED} == GUARDED


def test_no_call_opens_a_pickle_or_builds_what_a_file_names():
    wrong = []
    scripts = PACKAGE.parent.glob("scripts/**/*.py")
    for path in [*PACKAGE.rglob("*.py"), *scripts]:
        for call in calls(path):
            keywords = {each.arg: ast.unparse(each.value) for each in call.keywords}
            name = ast.unparse(call.func)
            if name in PICKLES and keywords.get("allow_pickle") != "False":
                wrong.append(f"{path.name}:{call.lineno}: {name} without allow_pickle=False")
            if name.startswith("np.savez"):  # older NumPy has no allow_pickle there
                wrong.append(f"{path.name}:{call.lineno}: {name}, not write_npz")
            if (name.rpartition(".")[2] in NEVER and (path.name, name) not in OWN_FILES) or keywords.get(
                "safe_mode"
            ) == "False":
                wrong.append(f"{path.name}:{call.lineno}: {name}")
    assert wrong == []
