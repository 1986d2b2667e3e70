"""The audit finds what it is there to find, in lists that are made up."""

import importlib.util
from importlib.machinery import SourceFileLoader

from conftest import ROOT

LOADER = SourceFileLoader("audit", str(ROOT / "scripts" / "audit"))
audit = importlib.util.module_from_spec(importlib.util.spec_from_loader("audit", LOADER))
LOADER.exec_module(audit)

HASH = " \\\n    --hash=sha256:" + "a" * 64


def lock(tmp_path, text):
    (tmp_path / "lock.txt").write_text(text)
    return list(audit.read_lock(tmp_path / "lock.txt"))


def test_this_project_as_it_is_installed_passes(capsys):
    assert audit.main() == 0, capsys.readouterr().err


def test_a_lock_line_without_hash_or_version_and_what_is_missing(tmp_path):
    found = lock(tmp_path, f"# made by\nnumpy==2.0{HASH}{HASH}\nh5py==3.1\nkeras>=3{HASH}\npyyaml==6 --hash=md5:abc\n")
    problems = list(audit.check_lock("lock.txt", found, ["NumPy>1", "rich", "PyYAML; python_version > '3'"]))
    assert [line.split(";")[0] for line in problems] == [
        "lock.txt: h5py has no hash, or no single version",
        "lock.txt: keras has no hash, or no single version",
        "lock.txt: pyyaml has no hash, or no single version",
        "lock.txt: rich of setup.py is missing",
    ]


def test_what_is_installed_and_not_locked_so(tmp_path):
    found = lock(
        tmp_path, f"numpy==2.0 ; python_version < '3'{HASH}\nnumpy==2.1 ; python_version > '3'{HASH}\nrich==1{HASH}"
    )
    assert list(audit.check_installed(found, {"numpy": "2.1", "pip": "1", "horovod": "1"})) == []
    assert [line.split(";")[0] for line in audit.check_installed(found, {"numpy": "2.0", "evil": "1"})] == [
        "evil 1 is installed and not locked",
        "numpy 2.0 is installed, 2.1 is locked",
    ]
