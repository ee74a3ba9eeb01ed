"""Broken parts of a model, a file per part."""
