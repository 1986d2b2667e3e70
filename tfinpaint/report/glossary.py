"""The terms that reports use, explained in a sentence each; a page explains those that occur in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tfinpaint.report.calibration import DEFINITION

TERMS: Mapping[str, str] = {  # in the order of a page; a term may name several forms, separated by "|"
    "accuracy": "The share of the images whose class is predicted correctly.",
    "95 % interval": "The range that holds the true value in 95 of 100 such experiments. That of an accuracy is "
    "Wilson's, for the number of test images; other trainings differ by more.",
    "precision": "Of the images that are predicted as a class, the share that belongs to it.",
    "recall": "Of the images of a class, the share that is predicted as that class.",
    "F1": "The harmonic mean of precision and recall.",
    "confusion matrix": "The number of test images by their true class (rows) and their predicted class (columns); the "
    "images on the diagonal are classified correctly.",
    "expected calibration error": DEFINITION,
    "epoch|epochs": "One pass over all training images, or another number of steps where the configuration has one, "
    "which may be many passes or a part of one. A test follows each epoch.",
    "loss": "The number that training makes as small as possible. Values of different loss functions cannot be "
    "compared.",
    "reconstruction loss": "The part of the loss that compares what was erased with what the network restores.",
    "total training loss": "The sum of all parts of the loss in training, each times its weight; a test lacks the "
    "agreement of two views.",
    "BCE": "Binary cross-entropy, a loss that compares values from 0 to 1 pixel by pixel.",
    "MSE": "Mean squared error, a loss that compares values pixel by pixel.",
    "L1": "The mean absolute difference of two images; L2 is the mean squared difference. Both are given in percent of "
    "the range of values, or of its square.",
    "NLL": "Negative log-likelihood, a loss: minus the logarithm of the probability that the network gives the true "
    "class. Guessing among ten classes has an NLL of 2.3.",
    "Dice coefficient": "Twice the overlap of a predicted region and the true one, divided by the sum of both areas; 1 "
    "is perfect.",
    "PSNR": "Peak signal-to-noise ratio: 10 log10(1 / mean squared error) for values from 0 to 1, in decibels (dB). "
    "3 dB more is half the squared error.",
    "SSIM": "Structural similarity of two images (Wang et al., 2004), at most 1; it follows edges and textures rather "
    "than single values.",
    "hole": "The part of an image that was erased and that the network has to restore.",
    "input": "What the network is given; for inpainting, the image with its hole.",
    "output": "What the network returns. Where the loss scores the hole alone, the rest of it may look wrong; the "
    "composite does not use that.",
    "composite": "The original image with the network's output in the hole: what a restored image looks like.",
    "mean colour": "A classical baseline: the hole is filled with the mean colour of the rest of the image.",
    "nearest": "A classical baseline: each pixel of the hole gets the colour of the nearest pixel outside.",
    "biharmonic": "A classical baseline: the hole is filled as smoothly as its border allows, by the biharmonic "
    "equation.",
    "baseline|baselines": "A simple method without any training or pretraining, which a network has to beat.",
    "encoder": "The part of the network that turns an image into features; pretraining trains it, and the classifier "
    "takes it over.",
    "pretrained": "With an encoder that was first trained without labels.",
    "from scratch|random weights": "Without pretraining: training begins from random weights.",
    "fine-tuned": "All layers are trained further on the labelled images.",
    "frozen": "The encoder stays as it is; a simple classifier is fitted to its features.",
    "random encoder": "An encoder with random weights, as before any training.",
    "stage|stages": "A group of the encoder's layers at one resolution, from 2 to 5; later stages see more of the "
    "image.",
    "features": "The numbers by which an encoder describes an image.",
    "probe": "A simple classifier on the features of an encoder, which shows how much they say about the classes.",
    "logistic regression": "A linear classifier of features; the smaller its number C, the simpler the classifier.",
    "k nearest neighbours": "A classifier that gives an image the class of the labelled images with the most similar "
    "features.",
    "HOG": "Histograms of oriented gradients, features that need no training.",
    "cross-validation": "Settings are chosen by training on parts of the labelled images and measuring on the others.",
    "validation": "Labelled images that are kept out of training to choose settings and the best epoch.",
    "held-out": "Kept out of training: the test images, or the validation images where there are some.",
    "near-duplicate|near-duplicates": "A test image that also occurs, perhaps changed a little, among the training "
    "images; it makes accuracies look too high.",
    "draw|draws": "One random choice of the labelled images; several show how much the result depends on that choice.",
    "points": "Percentage points: from 80 to 85 % are 5 points.",
    "bootstrap": "A way to find intervals: the results are computed again and again on test images that are drawn at "
    "random from the test images.",
    "paired test": "It asks only about the test images that one classifier has right and the other wrong: p is how "
    "often tossing a coin for each of them would make as large a difference.",
    "Fisher's exact test": "It compares how many test images are right, not which: p is how often as large a "
    "difference would occur between classifiers that are equally good and make their errors on other images.",
    "RankMe": "The effective number of independent features; near 1, all images have the same features.",
    "checkpoint": "The weights and the state of a run, saved after an epoch.",
    "ranks": "The processes that train together, each on its share of every batch; one rank is a training in a single "
    "process. Also called world size.",
    "images/s": "Training images per second, over all ranks.",
    "parameters": "The numbers in the network that training adjusts.",
}


def explain_terms(text: str) -> dict[str, str]:
    """Return the terms that occur in a text, with their explanations.

    Terms of lower-case letters are found in any case, others only as they are.
    """
    found = {}
    for term, explanation in TERMS.items():
        forms = "|".join(map(re.escape, term.split("|")))
        if re.search(rf"(?<!\w)({forms})(?!\w)", text, re.IGNORECASE if term.islower() else 0):
            found[term.partition("|")[0]] = explanation
    return found
