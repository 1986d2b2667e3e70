"""Configurations: schema, reading, checks and words for what is wrong. Imports no TensorFlow."""
