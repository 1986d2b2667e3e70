"""Every page as a reader sees it, in headless Chromium: at two widths, light and dark."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import study_pages
from browser import SCHEMES, WIDTHS, Browser, find_browser
from pages import run_pages

NAMES = ("pretraining", "classifier", "few", "many", "evaluation", "comparison", "probe", "sweep")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = run_pages(folder)
    source = folder / "mine" / "pretrain"
    with pytest.MonkeyPatch.context() as monkeypatch:
        found["probe"] = study_pages.probe(folder / "probing", source, monkeypatch)
    return {**found, "sweep": study_pages.sweep(folder / "sweeping", source)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed, so no page is looked at")
    with Browser(program) as started:
        yield started


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_read_on_any_screen(pages, browser, name):
    backgrounds = {}
    for width in WIDTHS:
        for scheme in SCHEMES:
            seen = browser.see(pages[name], width, scheme)
            found = seen.measured
            assert (seen.complaints, seen.requests) == ([], [])  # nothing is fetched from anywhere
            assert (found["width"], found["scroll_width"], found["too_wide"]) == (width, width, [])
            assert (found["broken"], found["empty"]) == (0, 0)
            assert all(len(alt) > 30 and alt.endswith(".") for alt in found["alts"]), found["alts"]
            backgrounds[scheme] = [sum(map(int, re.findall(r"\d+", found[part]))) for part in ("background", "colour")]
    assert backgrounds["light"][0] == 3 * 255 > backgrounds["light"][1] + 500
    assert backgrounds["dark"][0] < 100 < backgrounds["dark"][1] - 400


@pytest.mark.parametrize("name", NAMES)
def test_a_page_begins_with_its_result_and_uses_words(pages, name):
    page = pages[name].read_text()
    body = re.sub("<details>.*?</details>", "", page.partition("<body>")[2], flags=re.DOTALL)
    text = re.sub("<img[^>]*>", "", body)
    assert re.search(r"</h1>\s*<section>\s*<h2>Result</h2>\s*<p>[A-Z0-9]", text)
    assert not re.search(r">[^<]*\b(None|nan|True|False)\b", text)
    words = re.sub("<td.*?</td>|<code>.*?</code>|<h[12]>.*?</h[12]>", "", text, flags=re.DOTALL)
    assert not re.findall(r"[a-z]+_[a-z]+_[a-z]+", re.sub("<[^>]*>", "", words))  # no keys of files
    assert "Terms on this page" in page
    assert "<td>date</td>" in page


def test_pages_lead_to_the_runs_behind_them(pages):
    targets = {"classifier": "pretraining", "comparison": "few", "probe": "pretraining", "sweep": "pretraining"}
    for name, target in targets.items():
        links = re.findall('<a href="([^"]*)">', pages[name].read_text())
        assert pages[target].resolve() in {(pages[name].parent / link).resolve() for link in links}, name


def test_an_animation_can_be_stopped_and_does_not_move_for_who_prefers_that(pages, browser):
    shown = "[...document.querySelectorAll('.animation img')].filter(e => e.checkVisibility()).map(e => e.className)[0]"
    for still, expected in ((False, ["moving", "still"]), (True, ["still", "moving"])):
        browser.see(pages["pretraining"], 400, "light", still=still)
        before = browser.evaluate(shown)
        browser.evaluate("document.querySelector('.animation input').click()")
        assert [before, browser.evaluate(shown)] == expected
