"""Compare a pretrained encoder with a random one, frozen and trained, over shares of the labels."""
