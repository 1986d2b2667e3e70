"""Pretrain an image encoder without labels by inpainting, then move it, by layer name, into a classifier.

Importing the package imports neither TensorFlow nor Keras: commands check their configuration first.
"""

from tfinpaint.system.startup import prepare_process
from tfinpaint.version import __version__

prepare_process()

__all__ = ["__version__"]
