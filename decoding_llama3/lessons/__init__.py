"""Teaches: figures, exercises with their checks, the bug museum."""
