"""Pretrain an image encoder without labels by inpainting, then move it, by layer name, into a classifier.

Importing the package imports neither TensorFlow nor Keras: commands check their configuration first.
"""

from tfinpaint import startup
from tfinpaint.version import __version__

startup.prepare()

__all__ = ["__version__"]
