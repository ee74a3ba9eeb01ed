"""Measures: the limits of a machine, and what share of them a model reaches."""

from decoding_llama3.benchmark.limits import measure_limits
from decoding_llama3.benchmark.stages import speed_ladder

__all__ = ["measure_limits", "speed_ladder"]
