"""The audit finds what it is there to find, in lists that are made up."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader

import pytest
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
        "lock.txt: rich of setup.py is not there",
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


@pytest.mark.parametrize(
    ("package", "version", "identifiers"),
    [
        ("keras", "3.12.0", ["CVE-2026-0897", "CVE-2026-1669", "CVE-2026-12480"]),
        ("keras", "3.12.4", []),
        ("keras", "3.13.2", ["CVE-2026-12480"]),
        ("keras", "3.15.1", []),
        ("pillow", "12.2", ["CVE-2026-59199", "CVE-2026-96639", "GHSA-5x8w-8jj5-q52h"]),
        ("pillow", "13.0.0", []),
        ("protobuf", "5.29.4", ["CVE-2025-4565"]),
        ("protobuf", "5.29.5", []),
    ],
)
def test_known_holes_by_version(package, version, identifiers):
    lines = [line for _, line in audit.check_holes(package, version, "here")]
    assert [line.split(" has ")[1].split(" (")[0] for line in lines] == identifiers


def failing(lines):
    return [is_mended for is_mended, _ in lines]


def test_a_hole_that_nobody_has_mended_is_told_and_no_failure_there_alone():
    old, new = ({"python_version": version, "python_full_version": f"{version}.0"} for version in ("3.10", "3.11"))
    found = dict(reversed(pair) for pair in audit.check_holes("pillow", "12.3.0", "here", [old]))
    assert set(found.values()) == {False}
    assert all(line.endswith("; nothing mended where python_version < '3.11'") for line in found)
    for each in ([new], [old, new]):
        assert failing(audit.check_holes("pillow", "12.3.0", "here", each)) == [True, True]
    assert not any("nothing mended" in line for _, line in audit.check_holes("pillow", "12.3.0", "here", [new]))
    assert failing(audit.check_holes("pillow", "12.3.0", "here")) == [sys.version_info >= (3, 11)] * 2


@pytest.mark.parametrize(
    ("marker", "fails"),
    [
        ("; python_full_version < '3.11'", False),
        ("; python_full_version < '3.12'", True),
        ("; python_full_version >= '3.11'", True),
        ("", True),
    ],
)
def test_a_lock_pins_what_has_a_hole_only_where_nothing_is_mended(tmp_path, marker, fails):
    ((requirement, _),) = lock(tmp_path, f"pillow==12.3.0 {marker}{HASH}\n")
    assert failing(audit.check_holes("pillow", "12.3.0", "lock", audit.environments(requirement))) == [fails] * 2


def test_the_pythons_are_those_of_the_project():
    text = (ROOT / "setup.py").read_text()
    assert f'python_requires=">={audit.PYTHONS[0]},<3.{int(audit.PYTHONS[-1][2:]) + 1}"' in text
