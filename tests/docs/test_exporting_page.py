"""The page on exporting has the lines of the model cards, which tests/commands/test_export.py executes."""

from pages_text import ROOT, blocks

from tfinpaint.exporting.card import USAGE
from tfinpaint.exporting.kinds import FORMATS


def test_the_page_has_the_lines_of_each_format():
    assert [text.strip() for text in blocks(ROOT / "docs" / "exporting.md", "python")] == [
        USAGE[each] for each in FORMATS
    ]
