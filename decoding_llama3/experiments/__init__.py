"""Trains small models and compares them."""
