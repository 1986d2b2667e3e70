"""The number of training images of each class, for the warning about those with very few."""

from types import SimpleNamespace

from tfinpaint.runs.classification import _count_by_class


def of(*labels):
    return SimpleNamespace(images=SimpleNamespace(listing=SimpleNamespace(labels=labels)))


def test_training_and_validation_images_count():
    session = SimpleNamespace(classes=("cat", "dog", "hen"), training=of(0, 0, 1), validation=of(0, 1))
    assert _count_by_class(session) == {"cat": 3, "dog": 2, "hen": 0}
    session.validation = None
    assert _count_by_class(session) == {"cat": 2, "dog": 1, "hen": 0}
