"""The pages name commands, options, files and headings that exist."""

from functools import cache

import pytest
from commandline import succeed
from pages_text import PAGES, ROOT, anchors, blocks, command_lines, commands_in_sentences, links

from tfinpaint.cli.purposes import PURPOSES
from tfinpaint.config.loader import load_config


@cache
def help_of(command: str) -> str:
    return succeed(command, "--help")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    unknown = [name for name in commands_in_sentences(page) if name not in PURPOSES]
    for program, *words in command_lines(page):
        if program != "tfinpaint":
            continue
        if words[0] not in PURPOSES:
            unknown.append(words[0])
            continue
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        unknown += [f"{words[0]} {option}" for option in options if option not in help_of(words[0]).split()]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    broken = [
        f"{path.relative_to(ROOT)}#{anchor}"
        for path, anchor in links(page)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]
    assert broken == []


def test_configurations_on_the_pages_are_valid(tmp_path):
    texts = [text for page in PAGES for text in blocks(page, "yaml")]
    assert len(texts) >= 5
    for text in texts:
        (tmp_path / "page.yaml").write_text(text)
        load_config(tmp_path / "page.yaml")


def test_every_page_can_be_reached_from_the_readme():
    seen, found = set(), [ROOT / "README.md"]
    while found:
        page = found.pop()
        if page not in seen:
            seen.add(page)
            found += [path for path, _ in links(page) if path.suffix == ".md" and path.exists()]
    assert set(PAGES) - seen == set()
