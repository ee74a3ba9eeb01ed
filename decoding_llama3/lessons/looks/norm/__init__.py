"""Part 3 - what is shown of normalisation, a line of the notebook each."""

from decoding_llama3.lessons.looks.norm.gradient import gradients, placements, slope, ways_back
from decoding_llama3.lessons.looks.norm.mechanism import (
    bars,
    circle,
    floor,
    growth,
    plane,
    precision,
    scaled,
    squares,
    sums,
    timings,
)
from decoding_llama3.lessons.looks.norm.models import depth, exchanged_weight, loudest, mean_direction, weights

__all__ = [
    "bars",
    "circle",
    "depth",
    "exchanged_weight",
    "floor",
    "gradients",
    "growth",
    "loudest",
    "mean_direction",
    "placements",
    "plane",
    "precision",
    "scaled",
    "slope",
    "squares",
    "sums",
    "timings",
    "ways_back",
    "weights",
]
