"""Compares: a model with other implementations on the same weights, and two checkpoints with each other."""
