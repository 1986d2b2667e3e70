"""Sorted listings of the images in a folder, cached from one start to the next. No TensorFlow."""
