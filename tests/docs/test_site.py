"""The site of the pages (mkdocs.yml) has every page in its navigation, is built strictly, and loads nothing."""

import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from pages_text import PAGES, ROOT

MADE = {"index.md", "python_reference.md"}  # by scripts/docs_hooks.py, as are the pages of the project's own folder


def entries(nav: object) -> Iterator[str]:
    """Yield the pages of a navigation, in order."""
    for each in nav.values() if isinstance(nav, dict) else nav:
        yield from [each] if isinstance(each, str) else entries(each)


def test_every_page_is_in_the_navigation_once():
    listed = list(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    own = [name for name in listed if name not in MADE and not name.startswith("project_")]
    assert sorted(own) == sorted(page.name for page in PAGES if page.parent.name == "docs")
    assert len(set(listed)) == len(listed)


@pytest.mark.stress
@pytest.mark.skipif(not (ROOT / ".venv-docs" / ".key").exists(), reason="scripts/docs has not been set up here")
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere():
    done = subprocess.run(["scripts/docs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((ROOT / "build" / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    loaded = re.compile(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["']?https?://[^>]*>""")
    assert [
        found for page in pages for found in loaded.findall(page.read_text()) if 'rel="canonical"' not in found
    ] == []
