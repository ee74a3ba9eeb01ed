"""What a notebook shows in one line: values are taken from a model, drawn, and shown with a title that is true.

A module per part; the figures themselves, arrays in and a picture out, are in `figures`.
"""
