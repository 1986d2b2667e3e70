"""Compact sequences of names: what a tuple of strings does, in a few bytes."""

import numpy as np
import pytest

from tfinpaint.data.listing import names as names_module
from tfinpaint.data.listing.names import Names

WORDS = ["a/1.png", "a/zwölf.png", "b/\udcff.png", "b/山.png", "c.png"]


def test_it_is_the_sequence_that_it_was_made_of(monkeypatch):
    monkeypatch.setattr(names_module, "BLOCK", 2)
    names = Names.of(iter(WORDS))
    assert names == WORDS
    assert names == tuple(WORDS)
    assert names != WORDS[:4]
    assert [names[i] for i in range(-5, 5)] == WORDS * 2
    assert list(names) == WORDS
    assert names[1:4] == WORDS[1:4]
    assert len(Names.of([])) == 0
    for index in (5, -6):
        with pytest.raises(IndexError):
            names[index]


def test_selections_share_the_characters_and_know_their_rows():
    names = Names.of(WORDS)
    some = names.select(np.array([4, 0, 2]))
    assert some == [WORDS[4], WORDS[0], WORDS[2]]
    assert some.select(range(1, 3)) == [WORDS[0], WORDS[2]]
    assert some.select([2]).row(0) == 2
    assert some.text is names.text
    assert some.rows.dtype == np.uint32


def test_the_digest_tells_apart_what_reads_alike_when_joined():
    assert Names.of(["ab", "c"]).digest() != Names.of(["a", "bc"]).digest()
    assert Names.of(["ab", "c"]).digest() != Names.of(["c", "ab"]).digest()
    assert Names.of(["x", "ab", "c"]).select([1, 2]).digest() == Names.of(["ab", "c"]).digest()


def test_a_name_costs_its_characters_and_eight_bytes():
    names = Names.of(f"class_{i % 10}/{i:07}.jpg" for i in range(100_000))
    assert names.text.nbytes + names.starts.nbytes == 100_000 * (19 + 8) + 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "/etc/passwd"], "absolute path"),
        (["a", "b/../../c"], "points outside the folder"),
        (["..", "x"], "points outside the folder"),
        (["a", "b\0c"], "points outside the folder"),
        (["a", ""], "do not fit"),
        (["a", "b\udcff"], r"'b\\udcff' is not UTF-8"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        Names.of(words).check()


def test_names_with_dots_are_fine():
    Names.of(["a..png", "a.", "./b", "c...png", "山..", "a/zwölf.png"]).check()


@pytest.mark.parametrize("starts", [[0, 2, 9], [0, 3, 2], [1, 2, 4], [0, 2, 3], [], [0, 0, 4], [0, 1, 4]])
def test_places_that_do_not_fit_are_refused(starts):
    text = np.frombuffer("éé".encode(), np.uint8)
    with pytest.raises(ValueError, match=r"do not fit|inside a character"):
        Names(text, np.array(starts, np.uint64)).check()


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="decode"):
        Names(np.array([0xC3, 0x28], np.uint8), np.array([0, 2], np.uint64)).check()
