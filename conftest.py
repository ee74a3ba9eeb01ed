"""The notebooks' cells that need the real model: see tests/real_cells.py."""

pytest_plugins = ["tests.real_cells"]
