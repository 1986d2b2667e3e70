"""Write, find and read checkpoints and weight files, and copy weights into a model by layer name."""
