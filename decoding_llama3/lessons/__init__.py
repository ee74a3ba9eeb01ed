"""For learners: figures, probes, training of the tiny model."""
