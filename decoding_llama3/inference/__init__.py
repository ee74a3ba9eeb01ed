"""Runs a model: checkpoints, devices, generation, compilation, quantisation."""
