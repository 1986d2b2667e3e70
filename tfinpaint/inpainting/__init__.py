"""Inpainting without training anything: classical baselines, image metrics, photos of any size."""
