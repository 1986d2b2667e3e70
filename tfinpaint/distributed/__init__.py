"""Ranks: how they are launched, how they exchange tensors, and how each learns that another has failed."""
