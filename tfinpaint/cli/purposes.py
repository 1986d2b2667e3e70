"""What each command does, in one sentence. Imports nothing, so that `tfinpaint --help` answers at once."""

from __future__ import annotations

# The description of each command in `--help`; `python -OO` drops the docstrings of modules.
PURPOSES = {
    "prepare": "Split a folder or archive of class folders into training/ and testing/, or pack images into records.",
    "preview": "Show what the network will see, before any training: original, mask, input and target.",
    "pretrain": "Pretrain an encoder without labels: erase a part of each image and learn to restore it.",
    "predict": "Restore a photo where a mask is white, with a model that `tfinpaint pretrain` has trained.",
    "classify": "Train a classifier on images in class folders, from a pretrained encoder or from scratch.",
    "probe": "Judge an encoder's features by simple classifiers on few labels, beside random encoders, pixels and HOG.",
    "sweep": "Find out whether pretraining pays: accuracy over shares of the labels, against training from scratch.",
    "features": "Write an encoder's features of images, with their names and labels, as NPZ, CSV or Parquet.",
    "compare": "Compare finished runs: a table on the terminal and one report of all of them.",
    "replay": "Find where in the network values are not finite, for the batch at which a run stopped because of them.",
    "canary": "Train a two-layer model on different data per rank and check that the ranks end with the same weights.",
    "doctor": "Describe the machine and what is installed, and try whether ranks train together under every launcher.",
}
