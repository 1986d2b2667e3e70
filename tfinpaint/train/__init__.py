"""The training loop. Gets datasets, models and the world as arguments; knows nothing of files or configurations."""
