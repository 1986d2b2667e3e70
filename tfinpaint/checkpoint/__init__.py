"""Checkpoints and weight files: written, found, read, and moved into a model by layer name."""
