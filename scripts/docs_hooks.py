"""Hooks of MkDocs (mkdocs.yml): the home page from README.md, and pages for what pages link to outside of docs/.

Links stay as a code host needs them. For the site, `../scripts/launch/mpirun.sh` becomes a page that shows that file,
a link to a folder becomes a page with the files in it, and a page in the project's folder becomes one of the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LANGUAGES = {".py": "python", ".sh": "bash", ".sbatch": "bash", ".yaml": "yaml", ".yml": "yaml"}
# The modules of the public Python interface: their docstrings are the page.
PYTHON_REFERENCE = """# Python reference

The docstrings of what other programs may import.

::: tfinpaint.interface

::: tfinpaint.distributed

::: tfinpaint.models.encoder.build_encoder
"""
_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Make the anchors of headings as code hosts make them."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made: the home page, the Python reference, and what lies outside of docs/."""
    made = {"python_reference.md": PYTHON_REFERENCE}
    wanted = sorted(ROOT.glob("*.md"))
    wanted += [target for page in DOCS.glob("*.md") for target in _targets(page)]
    while wanted:
        path = wanted.pop()
        if path.exists() and not path.is_relative_to(DOCS) and (name := _name_of(path)) not in made:
            made[name] = _text_of(path)
            wanted += _targets(path)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead the links of a page in docs/ to the pages that stand for what they name."""
    return _for_the_site(markdown, DOCS) if page.file.generated_by is None else markdown


def _targets(page: Path) -> list[Path]:
    """Return the files and folders that a Markdown page links to."""
    if page.suffix != ".md":
        return []
    return [(page.parent / link[1]).resolve() for link in _LINK.finditer(page.read_text()) if "://" not in link[1]]


def _name_of(path: Path) -> str:
    """Return the place in the site, below docs/, of a file or a folder of the project."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    if path == ROOT / "README.md":
        return "index.md"
    if path.parent == ROOT and path.suffix == ".md":
        return f"project_{path.stem.lower()}.md"
    return f"source/{path.relative_to(ROOT).as_posix()}.md"


def _text_of(path: Path) -> str:
    if path.suffix == ".md":
        return _for_the_site(path.read_text(), path.parent)
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    blocks = []
    for file in files:
        text = file.read_text(errors="replace").rstrip()
        blocks.append(f"## {file.name}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{text}\n````\n")
    return "\n".join([f"# {path.relative_to(ROOT).as_posix()}\n", *blocks])


def _for_the_site(markdown: str, folder: Path) -> str:
    """Return a page whose links are those of the site.

    Args:
        folder: that the links of the page are relative to.
    """

    def lead(link: re.Match[str]) -> str:
        path = (folder / link[1]).resolve()
        if "://" in link[1] or not path.exists():
            return link[0]  # MkDocs reports the link
        return f"]({_name_of(path)}{link[2] or ''})"

    return _LINK.sub(lead, markdown)
