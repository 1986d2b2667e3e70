"""Decode image files into pixels. No TensorFlow."""
