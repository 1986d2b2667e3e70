"""Classical inpainting baselines, image metrics, and the restoration of photos of any size."""
