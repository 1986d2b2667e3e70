"""The report is one page, and texts in it cannot become markup."""

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tfinpaint.report.html import Section, write_page


def test_the_page_holds_its_figures_and_escapes_text(tmp_path):
    texts = PngInfo()
    texts.add_text("Description", 'A "square" & more')
    Image.new("RGB", (4, 4)).save(tmp_path / "figure.png", pnginfo=texts)
    Image.new("RGB", (4, 4)).save(tmp_path / "moving.gif")
    (tmp_path / "broken_figure.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 50)
    sections = [
        Section(
            "<h>", table=[["name", "value"], ["<b>", 1234567], ["rate", 0.123456]], text="<script>", sentences=["<i>"]
        ),
        Section(
            "figures",
            figures=[tmp_path / name for name in ("figure.png", "missing.png", "moving.gif", "broken_figure.png")],
        ),
        Section("Curves", figures=[tmp_path / "missing.png"]),
    ]
    write_page(tmp_path / "report.html", "a & b", sections)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert 'alt="broken figure"' in page
    assert page.count("data:image/gif;base64,R0lGOD") == 1
    assert 'class="diagram" alt="A &#34;square&#34; &amp; more"' in page
    assert 'class="photos" alt="moving"' in page
    assert "<p>&lt;i&gt;</p>" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a &amp; b" in page
    assert "<td>1,234,567</td>" in page
    assert "<td>0.1235</td>" in page
    assert "Curves" not in page  # a heading with nothing below it
    assert "http" not in page  # nothing is fetched when it is opened
