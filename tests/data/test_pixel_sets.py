"""Sets of pixels as bits: golden pixels, and the same as a loop over rectangles."""

import numpy as np
import pytest
import tensorflow as tf

from tfinpaint.data import pixel_sets

WIDTHS = (4, 24, 37, 64, 97, 128, 224)  # a word: the whole row, a part of it, a single pixel of a prime width


def as_rows(words, width):
    return [
        "".join(".#"[int(value)] for value in row) for row in pixel_sets.to_mask(words, width=width).numpy()[0, ..., 0]
    ]


def draw_by_hand(rectangles, height, width, limit=None):
    masks = np.zeros([len(rectangles), height, width, 1], np.float32)
    for mask, of_image in zip(masks, rectangles, strict=True):
        for top, left, rows, columns in of_image:
            more = mask.copy()
            more[top : top + rows, left : left + columns] = 1
            if limit is not None and more.sum() > limit:
                break
            mask[:] = more
    return masks


def random_rectangles(height, width, images=5, number=30):
    generator = np.random.default_rng(width)
    begins = generator.integers(0, (height, width), (images, number, 2))
    sides = generator.integers(0, np.minimum((height, width) - begins, (9, 40)) + 1)
    return np.concatenate([begins, sides], axis=-1).astype(np.int32)


def test_union_of_rectangles_on_golden_pixels():
    rectangles = tf.constant([[[0, 1, 2, 2], [1, 2, 2, 2]]])  # two 2 x 2 squares that overlap in one pixel
    assert as_rows(pixel_sets.cover(rectangles, height=3, width=4), 4) == [".##.", ".###", "..##"]


def test_rectangles_are_added_while_they_fit():
    # 4 pixels, the same again, 2 more, 3 more. A limit of 6 stops before the last, one of 5 before the third, although
    # the empty one after it would fit.
    rectangles = [[0, 0, 2, 2], [0, 0, 2, 2], [2, 0, 1, 2], [0, 2, 3, 1], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 3, 4]]
    drawn = {
        limit: as_rows(pixel_sets.cover_up_to(tf.constant([rectangles]), limit, height=3, width=4), 4)
        for limit in (3, 5, 6, 9, 12)
    }
    assert drawn[3] == ["....", "....", "...."]
    assert drawn[5] == ["##..", "##..", "...."]
    assert drawn[6] == ["##..", "##..", "##.."]
    assert drawn[9] == ["###.", "###.", "###."]
    assert drawn[12] == ["####", "####", "####"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_word_holds_as_many_pixels_as_divide_a_row(width):
    bits = pixel_sets.word_width(width)
    assert bits == {4: 4, 24: 24, 37: 1, 64: 32, 97: 1, 128: 32, 224: 32}[width]


@pytest.mark.parametrize("limit", [None, 60])
@pytest.mark.parametrize("width", WIDTHS)
def test_unions_are_those_of_a_loop_over_rectangles(width, limit):
    rectangles = random_rectangles(17, width)
    words = pixel_sets.cover_up_to(tf.constant(rectangles), limit, height=17, width=width)
    mask = pixel_sets.to_mask(words, width=width).numpy()
    assert mask.dtype == np.float32
    assert np.array_equal(mask, draw_by_hand(rectangles, 17, width, limit))
    assert np.array_equal(pixel_sets.pack(tf.constant(mask)), words)


@pytest.mark.parametrize("limit", [None, 600])
def test_compiling_changes_no_bit(limit):
    rectangles = random_rectangles(128, 128)

    @tf.function(autograph=False, jit_compile=True)
    def compiled(rectangles):
        return pixel_sets.cover_up_to(rectangles, limit, height=128, width=128)

    mask = pixel_sets.to_mask(compiled(tf.constant(rectangles)), width=128).numpy()
    assert np.array_equal(mask, draw_by_hand(rectangles, 128, 128, limit))


def test_pixels_are_repeated_for_their_channels():
    words = pixel_sets.pack(tf.constant([0.0, 1, 1, 0], shape=[1, 1, 4, 1]))
    assert pixel_sets.unpack(words, width=4, repeats=3).numpy().ravel().tolist() == [0] * 3 + [1] * 6 + [0] * 3
