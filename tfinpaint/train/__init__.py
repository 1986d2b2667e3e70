"""Training and evaluation of a model by all ranks together. No module here opens a file."""
