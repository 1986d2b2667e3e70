"""What each command does, an example of it, and what to do next. Imports nothing, so that `--help` answers at once."""

from __future__ import annotations

# The description of each command in `--help`; `python -OO` drops the docstrings of modules.
PURPOSES = {
    "demo": "Show in a few minutes what pretraining is good for, on handwritten digits: from images to a comparison.",
    "init": "Look at a folder of images and write configurations that suit them and this machine.",
    "run": "Run what init has written: prepare, pretrain, classify, compare, and say whether pretraining helped.",
    "prepare": "Split a folder or archive of class folders into training/ and testing/, or pack images into records.",
    "preview": "Show what the network will see, before any training: original, mask, input and target.",
    "pretrain": "Pretrain an encoder without labels: erase a part of each image and learn to restore it.",
    "predict": "Predict the classes of photos by a trained classifier, or restore a photo where a mask is white.",
    "classify": "Train a classifier on images in class folders, from a pretrained encoder or from scratch.",
    "evaluate": "Measure a classifier, or an inpainter, on any folder of images: accuracy, classes, calibration.",
    "export": "Write a trained classifier or encoder for other programs: Keras, SavedModel or ONNX.",
    "probe": "Judge an encoder's features by simple classifiers on few labels, beside random encoders, pixels and HOG.",
    "sweep": "Find out whether pretraining pays: accuracy over shares of the labels, against training from scratch.",
    "features": "Write an encoder's features of images, with their names and labels, as NPZ, CSV or Parquet.",
    "runs": "List the runs in a folder: kind, date, data, epochs, main figure, best checkpoint and state.",
    "config": "List the keys of a configuration, check or print a configuration file, or print the schema for editors.",
    "compare": "Compare finished runs: a table on the terminal and one report of all of them.",
    "replay": "Find where in the network values are not finite, for the batch at which a run stopped because of them.",
    "canary": "Train a two-layer model on different data per rank and check that the ranks end with the same weights.",
    "doctor": "Describe the machine and what is installed, and try whether ranks train together under every launcher.",
}

# Command -> an example of it, and what usually follows.
EXAMPLES = {
    "demo": (
        "tfinpaint demo",
        "open runs/demo/report.html in a browser, then tfinpaint init with a folder of your own images",
    ),
    "init": (
        "tfinpaint init my_photos",
        "tfinpaint run runs/my_photos",
    ),
    "run": (
        "tfinpaint run runs/my_photos",
        "open comparison.html in a browser, then tfinpaint predict runs/my_photos/classify PHOTO",
    ),
    "prepare": (
        "tfinpaint prepare my_images.zip runs/data/my_images",
        "tfinpaint pretrain, with data.input_path: runs/data/my_images/training",
    ),
    "preview": (
        "tfinpaint preview --config configs/demo/pretrain.yaml",
        "look at preview.png, then tfinpaint pretrain with the same file",
    ),
    "pretrain": (
        "tfinpaint pretrain --config configs/demo/pretrain.yaml",
        "tfinpaint classify, with the run folder in checkpoints.load",
    ),
    "predict": (
        "tfinpaint predict runs/demo/pretrained photo.jpg",
        "the same with a folder of photos and --csv FILE; or, with a run of pretrain, PHOTO MASK",
    ),
    "classify": (
        "tfinpaint classify --config configs/demo/classify.yaml",
        "the same from scratch (--set checkpoints.load=null --workdir FOLDER), then tfinpaint compare",
    ),
    "evaluate": (
        "tfinpaint evaluate runs/demo/pretrained --data new_images",
        "open report.html of the folder that it names in a browser",
    ),
    "export": (
        "tfinpaint export runs/demo/pretrained --format keras --output exported",
        "use it as MODEL_CARD.md in that folder says",
    ),
    "probe": (
        "tfinpaint probe runs/demo/pretrain --data runs/demo/data/training",
        "tfinpaint classify, with the run folder in checkpoints.load",
    ),
    "sweep": (
        "tfinpaint sweep --config configs/demo/classify.yaml --dry-run",
        "the same without --dry-run",
    ),
    "features": (
        "tfinpaint features runs/demo/pretrain my_photos --output features.npz",
        "load the file in another program, such as by numpy.load",
    ),
    "config": (
        "tfinpaint config keys batch",
        "tfinpaint config check FILE, then tfinpaint pretrain or classify with that file",
    ),
    "runs": (
        "tfinpaint runs runs/demo",
        "tfinpaint compare, with those that belong together",
    ),
    "compare": (
        "tfinpaint compare runs/demo/pretrained runs/demo/from_scratch",
        "open comparison.html in a browser",
    ),
    "replay": (
        "tfinpaint replay --workdir runs/my_photos/pretrain",
        "lower optimizer.learning_rate or remove the images that are named, then start the run again",
    ),
    "canary": (
        "horovodrun -np 2 python -m tfinpaint.canary --ranks 2",
        "tfinpaint pretrain under the same launcher",
    ),
    "doctor": (
        "tfinpaint doctor",
        "follow the remedy of each problem that it names",
    ),
}
