"""Packages of the extra `real`, which a reader of Llama 3 alone does not need."""

import importlib
from types import ModuleType


def needed(package: str, purpose: str) -> ModuleType:
    """The package, imported; ValueError names the extra where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ValueError(f"{purpose} needs the package {package}: pip install 'decoding-llama3[real]'") from None
