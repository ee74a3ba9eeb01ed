"""Checkpoint formats: each opens what lies on the disk as one `Checkpoint`, with tensors under our names."""
