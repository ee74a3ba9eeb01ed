"""Figures of the notebooks, a file per part: arrays in, Figure out."""
