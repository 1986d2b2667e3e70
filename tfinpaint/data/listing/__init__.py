"""Folders of images -> sorted lists, remembered from one start to the next. No TensorFlow."""
