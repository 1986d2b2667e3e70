"""Frozen encoders are chosen on labelled images alone, and give the accuracies of scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tfinpaint.config.schema import Config
from tfinpaint.errors import UserError
from tfinpaint.sweeping.frozen import _fit, check_source

GENERATOR = np.random.default_rng(0)
TRAIN, TEST = np.repeat([0, 1, 2], 40), np.repeat([0, 1, 2], 20)


def features(train_noise: float, test_noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Features that tell the classes apart as well as the noise allows."""
    return tuple(
        np.eye(6, dtype=np.float32)[labels] + GENERATOR.normal(0, noise, (len(labels), 6)).astype(np.float32)
        for labels, noise in ((TRAIN, train_noise), (TEST, test_noise))
    )


def test_the_test_images_do_not_choose_the_encoder():
    candidates = {"better in testing": features(0.8, 0.1), "better on labelled images": features(0.1, 0.8)}
    chosen = np.arange(0, len(TRAIN), 2)
    settings, at_edge, validated, accuracy, predicted = _fit(candidates, chosen, TRAIN, TEST)
    assert settings["encoder"] == "better on labelled images"
    assert not at_edge
    assert validated == 1.0
    train, test = candidates["better on labelled images"]
    scaler = StandardScaler().fit(train[chosen])
    model = LogisticRegression(C=settings["c"], max_iter=1000).fit(scaler.transform(train[chosen]), TRAIN[chosen])
    assert np.mean(np.array(predicted) == model.predict(scaler.transform(test))) > 0.98
    assert accuracy == pytest.approx(np.mean(np.array(predicted) == TEST))
    better = _fit({"better in testing": candidates["better in testing"]}, chosen, TRAIN, TEST)
    assert better[3] > accuracy
    assert "encoder" not in better[0]


def test_the_pretrained_encoder_must_be_that_of_the_configuration():
    """With another stem, all but the first convolution would be transferred, and frozen encoders have their own."""
    config = Config.model_validate({"data": {"transforms": [{"resize": [32, 32]}]}, "model": {"encoder": "resnet18"}})
    plan = SimpleNamespace(config=config, weights="runs/a")
    source = {"shape": (32, 32, 3), "encoder": "resnet18", "stem": "standard"}
    check_source(plan, SimpleNamespace(**source))
    for changed, message in [
        ({"stem": "small"}, "^runs/a: its stem is small, model.stem is standard; use the same$"),
        ({"encoder": "tiny"}, "^runs/a: its encoder is tiny, model.encoder is resnet18; use the same$"),
        ({"shape": (64, 32, 3)}, "images of 32 x 32 x 3 .*, but runs/a was trained on 64 x 32 x 3; use the same size"),
    ]:
        with pytest.raises(UserError, match=message):
            check_source(plan, SimpleNamespace(**{**source, **changed}))
