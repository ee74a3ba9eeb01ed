"""A plugin for pytest and nbval: a cell tagged `real` runs where SmolLM2 lies in the cache, and else is skipped.

With REAL=1 none may be skipped: a run that asks for the real model and has none is an error. Where nbval compares
outputs, what outputs.cfg names is left out. conftest.py loads this.
"""

import os
from pathlib import Path

import pytest

from decoding_llama3.inference.checkpoint.named import SMOLLM2
from decoding_llama3.inference.data import cache_directory

TAG, REMEDY = "real", "run 'decoding-llama3 download smollm2'"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if getattr(config.option, "nbval_sanitize_with", "no nbval") is None:
        config.option.nbval_sanitize_with = str(Path(__file__).with_name("outputs.cfg"))
    real = [item for item in items if TAG in tags_of(item)]
    if not real or (cache_directory() / "smollm2" / SMOLLM2).is_file():
        return
    if os.environ.get("REAL") == "1":
        raise pytest.UsageError(f"REAL=1, but SmolLM2 is not in {cache_directory()}: {REMEDY}")
    for item in real:
        item.add_marker(pytest.mark.skip(reason=REMEDY))


def tags_of(item: pytest.Item) -> list[str]:
    """The tags of a notebook's cell; none for a test that is no cell."""
    cell = getattr(item, "cell", None)
    return cell.metadata.get("tags", []) if cell is not None else []
