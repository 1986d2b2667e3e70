"""The report is one page, and texts in it cannot become markup."""

import re

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tfinpaint.report.animation import add_frame, write_animation
from tfinpaint.report.cells import Best, Code, Link, link_to
from tfinpaint.report.figures import draw_grid
from tfinpaint.report.html import Section, write_page


def test_the_page_holds_its_figures_and_escapes_text(tmp_path):
    texts = PngInfo()
    texts.add_text("Description", 'A "square" & more')
    Image.new("RGB", (4, 4)).save(tmp_path / "figure.png", pnginfo=texts)
    Image.new("RGB", (4, 4)).save(tmp_path / "moving.gif")
    (tmp_path / "broken_figure.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    sections = [
        Section(
            "<h>",
            table=[["name", "value"], ["<b>", 1234567], ["rate", 0.123456], ["speed", 12345.6]],
            text="<script>",
            sentences=["<i>"],
        ),
        Section(
            "figures",
            figures=[tmp_path / name for name in ("figure.png", "missing.png", "moving.gif", "broken_figure.png")],
        ),
        Section("Curves", figures=[tmp_path / "missing.png"]),
        Section("Predictions", table=[["image", "class"]]),
    ]
    write_page(tmp_path / "report.html", "a & b", sections)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # two figures, and the last picture of the animation
    assert 'alt="broken figure"' in page
    assert page.count("data:image/gif;base64,R0lGOD") == 1
    assert re.search('class="diagram" [^>]*alt="A &#34;square&#34; &amp; more"', page)
    assert 'class="moving" alt="moving"' in page
    assert "<p>&lt;i&gt;</p>" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert "<td>1,234,567</td>" in page
    assert "<td>0.1235</td>" in page
    assert "<td>12,346</td>" in page
    assert "Curves" not in page  # a heading with nothing below it
    assert "Predictions" not in page
    assert "http" not in page  # nothing is fetched when it is opened


def test_cells_are_links_commands_and_best_values(tmp_path):
    other = tmp_path / "runs" / "a b#?" / "report.html"
    other.parent.mkdir(parents=True)
    other.touch()
    link = link_to(other, tmp_path / "pages", "<run>")
    assert link == Link("<run>", "../runs/a%20b%23%3F/report.html")  # relative: both folders may be moved together
    assert link_to(tmp_path / "missing.html", tmp_path, "x") == "x"
    table = [["", ""], ["run", link], ["command", Code("tfinpaint 'a b'")], ["value", Best(17.25)], ["none", None]]
    write_page(tmp_path / "report.html", "x", [Section("About", table=table)])
    page = (tmp_path / "report.html").read_text()
    assert '<a href="../runs/a%20b%23%3F/report.html">&lt;run&gt;</a>' in page
    assert "<code>tfinpaint &#39;a b&#39;</code>" in page
    assert '<td class="best">17.25 ★</td>' in page
    assert "<td></td>" in page
    assert "<th" not in page  # an empty heading row is not shown


def test_a_page_explains_the_terms_that_it_uses_and_no_others(tmp_path):
    sections = [
        Section("PSNR", sentences=["The held-out composite."], table=[["Recall", "x"], ["hole", 1]], text="biharmonic")
    ]
    write_page(tmp_path / "report.html", "x", sections)
    found = re.findall("<dt>(.*?)</dt>", (tmp_path / "report.html").read_text())
    assert found == ["recall", "PSNR", "hole", "composite", "held-out"]


@pytest.mark.parametrize("text", ["a lossy whole draws0 psnr", ""])
def test_a_term_is_a_word(tmp_path, text):
    write_page(tmp_path / "report.html", "x", [Section("x", sentences=[text])])
    assert "Terms on this page" not in (tmp_path / "report.html").read_text()


def test_a_dark_page_changes_what_is_around_photos_alone(tmp_path):
    """White margins and black words would be white blocks on it."""
    draw_grid({"a": np.full([1, 8, 8, 3], 0.5), "b": np.full([1, 8, 8, 3], 0.5)}, "images", tmp_path / "grid.png")
    for name, value in (("old", "yes"), ("odd", "[[0, 0, 1e999, 1]]"), ("bad", "[[0, 0, 1"), ("none", "[]")):
        texts = PngInfo()
        texts.add_text("Photos", value)
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png", pnginfo=texts)
    names = ("grid", "old", "odd", "bad", "none")
    write_page(tmp_path / "x.html", "x", [Section("x", figures=[tmp_path / f"{name}.png" for name in names])])
    page = (tmp_path / "x.html").read_text()
    (corners,) = re.findall(r'class="around" style="clip-path: polygon\(evenodd, (.*?)\)"', page)
    assert page.count('class="photos"') == 5
    with Image.open(tmp_path / "grid.png") as picture:
        width, height = picture.size
        pixels = np.asarray(picture.convert("L"))
    places = [tuple(float(part.rstrip("%")) / 100 for part in corner.split()) for corner in corners.split(", ")]
    assert len(places) == 6 + 2 * 6
    for first in (6, 12):
        (left, upper), (right, lower) = places[first], places[first + 2]
        box = np.s_[
            round(upper * height) + 1 : round(lower * height) - 1, round(left * width) + 1 : round(right * width) - 1
        ]
        assert pixels[box].size > 10_000
        assert np.ptp(pixels[box]) == 0  # grey, without a pixel of the margin
        assert 120 < pixels[box].mean() < 135
    outside = pixels[round(places[6][1] * height) + 5, : round(places[6][0] * width) - 1]
    assert outside.min() == 255


def test_a_dark_page_leaves_the_images_of_an_animation_as_they_are(tmp_path):
    add_frame(tmp_path / "frames", 1, np.full([64, 192, 3], 0.5))
    write_animation(tmp_path / "frames", tmp_path / "animation.gif")
    write_page(tmp_path / "x.html", "x", [Section("x", figures=[tmp_path / "animation.gif"])])
    (corners,) = re.findall(r"polygon\(evenodd, (.*?)\)", (tmp_path / "x.html").read_text())
    with Image.open(tmp_path / "animation.gif") as file:
        pixels = np.asarray(file.convert("L"))
    upper, lower = (float(corners.split(", ")[place].split("% ")[1].rstrip("%")) / 100 for place in (6, 8))
    assert pixels[round(upper * len(pixels)) + 1 : round(lower * len(pixels)) - 1].min() > 100
    assert pixels[: round(upper * len(pixels)) - 1, 0].min() == 255


def test_figures_may_have_headings_and_sections_links(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    section = Section(
        "x", figures=[tmp_path / "a.png"], titles={"a.png": "<Accuracy>"}, links=[Link("all & more", "../a%20b.html")]
    )
    write_page(tmp_path / "x.html", "x", [section])
    page = (tmp_path / "x.html").read_text()
    assert "<h3>&lt;Accuracy&gt;</h3>" in page
    assert '<p><a href="../a%20b.html">all &amp; more</a></p>' in page
