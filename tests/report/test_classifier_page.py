"""The sentences of a classifier's page are true of few and of many classes, and without test images."""

import numpy as np

from tfinpaint.report.calibration import Calibration
from tfinpaint.report.classifier_page import SAMPLE, classifier_sections
from tfinpaint.report.confusion import Confusion


def sections_of(figures, classes, pairs):
    """The sections about these test images, by their headings; pairs are (true, predicted, images)."""
    confusion = Confusion.of([f"c{number}" for number in range(classes)], [np.array(pairs)])
    calibration = Calibration.of(np.array([0.5]), np.array([True]))
    (figures / SAMPLE).touch()
    return {each.heading: each for each in classifier_sections(figures, {}, confusion, calibration, "")}


def test_the_sample_names_the_classes_that_it_is_from(tmp_path):
    few = sections_of(tmp_path, 400, [[number, number, 1] for number in range(16)])
    assert few["Some test images"].sentences[0].startswith("They were chosen at random, in turn from each class. Below")
    many = sections_of(tmp_path, 400, [[number, number, 1] for number in range(17)])
    assert (
        many["Some test images"]
        .sentences[0]
        .startswith("They were chosen at random, one from each of the first 16 classes. Below")
    )


def test_more_pairs_are_promised_only_where_there_are_more(tmp_path):
    heading = "Test images that are classified wrongly"
    pairs = [[number, number + 1, 1] for number in range(21)]
    assert sections_of(tmp_path, 30, pairs[:20])[heading].note == (
        "The pairs are in figures/confused_pairs.csv, and what every test image is predicted as in "
        "figures/test_predictions.csv."
    )
    assert sections_of(tmp_path, 30, pairs)[heading].note.startswith("More pairs are in figures/confused_pairs.csv, ")
    assert sections_of(tmp_path, 30, [[0, 0, 5]])[heading].note == ""


def test_without_test_images_the_validation_images_are_named(tmp_path):
    def result(summary):
        return classifier_sections(tmp_path, summary, None, None, "")[0].sentences[-1]

    assert result({}) == "There are no labelled test images, so the accuracy on new images is not known."
    assert result({"validation_images": 1200, "validation_accuracy": 0.91}) == (
        "There are no labelled test images. The accuracy on 1,200 validation images is 0.910; it may be lower on new "
        "images, because the validation images have chosen the best epoch."
    )


def test_tables_are_written_for_readers(tmp_path):
    """Scores have equal lengths, shares are percentages, and what is not defined is a dash that is explained."""
    found = sections_of(tmp_path, 3, [[0, 0, 9], [0, 1, 1], [1, 1, 19], [2, 0, 1]])
    assert found["Test images that are classified wrongly"].table[1:] == [
        ["c2", "c0", 1, "100 %"],
        ["c0", "c1", 1, "10 %"],
    ]
    assert found["Classes"].table[1] == [0, "c0", 10, 9, "0.900", "0.900", "0.900"]
    assert found["Classes"].table[3] == [2, "c2", 1, 0, "0.000", "-", "0.000"]
    assert found["Classes"].note.startswith("-: the precision of a class that is never predicted")
    assert "the colour is the share of the row" in found["Confusion matrix of the test images"].sentences[0]
    whole = sections_of(tmp_path, 2, [[0, 0, 9], [1, 1, 1]])
    assert whole["Classes"].note.startswith("Higher recall")


def test_a_class_with_few_training_images_is_named_in_the_result(tmp_path):
    result = classifier_sections(tmp_path, {"few_training_images": {"dog": 2}}, None, None, "")[0].sentences
    assert result[0].startswith("Too few training images to learn from: dog (2 images).")


def test_a_classifier_of_a_project_leads_to_its_comparison(tmp_path):
    figures = tmp_path / "classify" / "figures"
    figures.mkdir(parents=True)

    def result(**summary):
        return classifier_sections(figures, summary, None, None, "")[0]

    assert result(from_scratch=False).links == []
    assert result(from_scratch=False).sentences[0].endswith("tfinpaint compare RUN OTHER_RUN.")
    (tmp_path / "project.json").touch()
    for from_scratch in (False, True):
        found = result(from_scratch=from_scratch)
        assert [link.address for link in found.links] == ["../comparison.html"]
        assert found.sentences[0].endswith("Whether pretraining helps is shown by the comparison of both ways:")
    assert result().links == []
