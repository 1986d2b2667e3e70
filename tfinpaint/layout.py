"""The names of the files and folders of a run and of a checkpoint, written down here alone (manifest.json: storage)."""

from __future__ import annotations

# In a run folder
RESOLVED_CONFIG = "config.resolved.yaml"  # the configuration with every default and every override
METRICS_LOG = "metrics.jsonl"
TENSORBOARD = "tensorboard"
TRACKERS = "trackers.json"  # the names that MLflow and Weights & Biases have for the run
FIGURES = "figures"
SUMMARY = "summary.json"
ENDING = "ending.json"  # of a run that ended before its last epoch: whether it was stopped or failed, and why
REPORT = "report.html"
BAD_IMAGES = "bad_images.txt"
REFUSED_BAD_IMAGES = "bad_images_refused.txt"  # of a start that was refused in the folder of an earlier run
NONFINITE_BATCHES = "nonfinite_batches"
CHECKPOINTS = "model_checkpoints"  # unless the configuration names another folder
LOCK = ".lock"  # also in the folder of the checkpoints
ENVIRONMENT = "environment.json"  # versions, revision, seed and command of the last start; in a project, its images
COMMUNICATION = "communication.json"  # of several ranks
TIMELINE = "timeline.json"  # of Horovod
AUTOTUNE_LOG = "autotune.csv"  # of Horovod

EVALUATIONS = "evaluations"  # of `tfinpaint evaluate`: a folder for each folder of images, unless another is named
PROBE = "probe"  # what `tfinpaint probe` writes, unless another folder is named

# In the folder of a probe
PROBE_JSON = "probe.json"
PROBE_FIGURE = "probe.png"  # also in the figures of pretraining

# In the folder of a sweep
SWEEP_PLAN = "plan.json"
SWEEP_JSON = "sweep.json"
SWEEP_TABLE = "sweep.csv"
SWEEP_FIGURE = "sweep.png"
SWEEP_TIMES = "times.json"

# In the folder of a project, which `tfinpaint init` makes
PROJECT = "project.json"  # where its images are
PREPARED = "data"  # the images, divided into training and test images
PRETRAIN_CONFIG, CLASSIFY_CONFIG = "pretrain.yaml", "classify.yaml"
PRETRAIN_RUN, CLASSIFY_RUN, SCRATCH_RUN = "pretrain", "classify", "from_scratch"  # run folders
COMPARISON = "comparison.html"

# In the folder of figures
RESTORATIONS = "restorations"  # the newest grid of images (.png), and a folder with earlier ones
ANIMATION = "animation"  # the animation (.gif), and a folder with its frames
CONFUSED_PAIRS = "confused_pairs.csv"
CLASS_TABLE = "test_classes.csv"
IMAGE_RESULTS = "test_predictions.csv"  # of each test image of a classifier

# In the folder of predictions
PREDICTIONS = "predictions.h5"
PREDICTIONS_TABLE = "predictions.csv"
RMLDNN_PREDICTIONS = "output_1.h5"  # the scripts of rmldnn's tutorials read [channels, height, width] from it

# In a checkpoint
HEADER = "checkpoint.json"
MODEL_WEIGHTS = "model.weights.h5"
ENCODER_WEIGHTS = "encoder.weights.h5"
OPTIMIZER_STATE = "optimizer.npz"
PROGRESS = "progress.json"
RANKS = "ranks.npz"

BEST = "best"  # stands for the name of a checkpoint in a path
BEST_PROBE = "best_probe"  # stands for another one

# JSON files of runs, sweeps and projects, which are no configurations
NO_CONFIGS = frozenset(
    (
        *(SUMMARY, ENDING, TRACKERS, ENVIRONMENT, COMMUNICATION, TIMELINE, PROJECT, HEADER, PROGRESS),
        *(PROBE_JSON, SWEEP_PLAN, SWEEP_JSON, SWEEP_TIMES),
    )
)


def companion_weights(name: str) -> str:
    """Return the name of the weight file of a network that is trained beside the model."""
    return f"{name}.weights.h5"


def companion_optimizer(name: str) -> str:
    """Return the name of the file with the state of such a network's optimizer."""
    return f"{name}_optimizer.npz"


def checkpoint_name(epoch: int, step: int = 0) -> str:
    """Return the name of the folder of a checkpoint saved after `epoch` epochs and `step` steps of the next one."""
    return f"model_checkpoint_{epoch}" + (f"_step_{step}" if step else "")
