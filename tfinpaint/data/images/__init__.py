"""Image files -> pixels. No TensorFlow."""
