"""Figures of the notebooks, a file a part: arrays in, Figure out."""
