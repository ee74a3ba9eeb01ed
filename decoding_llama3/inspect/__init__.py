"""Reads inside a running model: what each part writes, where each head looks."""
