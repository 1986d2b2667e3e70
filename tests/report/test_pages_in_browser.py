"""Every page as a reader sees it, in headless Chromium: at two widths, light and dark."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import SCHEMES, WIDTHS, Browser, find_browser
from pages import run_page

ALWAYS, STRESS = ("pretraining", "classifier"), ("few", "many", "evaluation", "comparison", "probe", "sweep")
NAMES = [*ALWAYS, *(pytest.param(name, marks=pytest.mark.stress) for name in STRESS)]


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make the page of a name, once."""
    folder, made = tmp_path_factory.mktemp("pages"), dict[str, Path]()

    def make(name: str) -> Path:
        if name not in ("probe", "sweep"):
            return run_page(folder, name)
        import study_pages  # imports TensorFlow

        source = run_page(folder, "pretraining").parent
        if name == "sweep":
            return study_pages.sweep(folder / "sweeping", source)
        with pytest.MonkeyPatch.context() as monkeypatch:
            return study_pages.probe(folder / "probing", source, monkeypatch)

    return lambda name: made[name] if name in made else made.setdefault(name, make(name))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed, so no page is looked at")
    with Browser(program) as started:
        yield started


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_be_read_on_any_screen(page_of, browser, name):
    backgrounds = {}
    for width in WIDTHS:
        for scheme in SCHEMES:
            seen = browser.see(page_of(name), width, scheme)
            found = seen.measured
            assert (seen.complaints, seen.requests) == ([], [])  # nothing is fetched from anywhere
            assert (found["width"], found["scroll_width"], found["too_wide"]) == (width, width, [])
            assert (found["broken"], found["empty"]) == (0, 0)
            assert all(len(alt) > 30 and alt.endswith(".") for alt in found["alts"]), found["alts"]
            backgrounds[scheme] = [sum(map(int, re.findall(r"\d+", found[part]))) for part in ("background", "colour")]
    assert backgrounds["light"][0] == 3 * 255 > backgrounds["light"][1] + 500
    assert backgrounds["dark"][0] < 100 < backgrounds["dark"][1] - 400


@pytest.mark.parametrize("name", NAMES)
def test_a_page_begins_with_its_result_and_uses_words(page_of, name):
    page = page_of(name).read_text()
    body = re.sub("<details>.*?</details>", "", page.partition("<body>")[2], flags=re.DOTALL)
    text = re.sub("<img[^>]*>", "", body)
    assert re.search(r"</h1>\s*<section>\s*<h2>Result</h2>\s*<p>[A-Z0-9]", text)
    assert not re.search(r">[^<]*\b(None|nan|True|False)\b", text)
    words = re.sub("<td.*?</td>|<code>.*?</code>|<h[12]>.*?</h[12]>", "", text, flags=re.DOTALL)
    assert not re.findall(r"[a-z]+_[a-z]+_[a-z]+", re.sub("<[^>]*>", "", words))  # no keys of files
    assert "Terms on this page" in page
    assert "<td>date</td>" in page


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("classifier", "pretraining"),
        *(
            pytest.param(*each, marks=pytest.mark.stress)
            for each in (("comparison", "few"), ("probe", "pretraining"), ("sweep", "pretraining"))
        ),
    ],
)
def test_a_page_leads_to_the_runs_behind_it(page_of, name, target):
    links = re.findall('<a href="([^"]*)">', page_of(name).read_text())
    assert page_of(target).resolve() in {(page_of(name).parent / link).resolve() for link in links}


@pytest.mark.stress
def test_an_animation_can_be_stopped_and_does_not_move_for_who_prefers_that(page_of, browser):
    shown = "[...document.querySelectorAll('.animation img')].filter(e => e.checkVisibility()).map(e => e.className)[0]"
    for still, expected in ((False, ["moving", "still"]), (True, ["still", "moving"])):
        browser.see(page_of("pretraining"), 400, "light", still=still)
        before = browser.evaluate(shown)
        browser.evaluate("document.querySelector('.animation input').click()")
        assert [before, browser.evaluate(shown)] == expected
