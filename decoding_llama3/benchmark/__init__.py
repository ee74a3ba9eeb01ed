"""Measures: the limits of a machine, and what share of them a model reaches."""

from decoding_llama3.benchmark.measure import measure_limits, speed_ladder

__all__ = ["measure_limits", "speed_ladder"]
