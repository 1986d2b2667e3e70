"""The explanations of terms on a page."""

from tfinpaint.report.glossary import explain_terms


def test_a_term_is_explained_where_it_occurs_in_any_of_its_forms():
    assert list(explain_terms("Epochs and PSNR, but no psnr-like words or lossless ones")) == ["epoch", "PSNR"]
    assert explain_terms("nothing") == {}


def test_the_test_of_a_comparison_is_explained():
    assert list(explain_terms("chance (a paired test on the same images, p = 0.021)")) == ["paired test"]
    assert list(explain_terms("chance (Fisher's exact test, as if ..., p = 0.085)")) == ["Fisher's exact test"]


def test_an_epoch_need_not_be_one_pass_over_the_images():
    assert "or another number of steps" in explain_terms("epoch 3")["epoch"]
