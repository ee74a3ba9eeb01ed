"""What makes the components run: checkpoints, generation, quantisation."""
