"""Where files lie: those that come with the package, weights, figures and licences, and what was downloaded."""

import os
from pathlib import Path


def data_directory() -> Path:
    """`data/`, inside the package when installed from a wheel, beside it in a checkout.

    Raises ValueError where it is missing.
    """
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "data", package.parent / "data"):
        if (directory / "tiny-llama3").is_dir():
            return directory
    raise ValueError(f"no data directory in or beside {package}: install the package again, as a whole")


def cache_directory() -> Path:
    """Where what was downloaded is kept: `decoding-llama3` in the user's cache, or DECODING_LLAMA3_CACHE."""
    own = os.environ.get("DECODING_LLAMA3_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "decoding-llama3"
