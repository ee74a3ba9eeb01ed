"""Where the files that come with the package lie: weights, figures, licences."""

from pathlib import Path


def data_directory() -> Path:
    """`data/`, inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for directory in (package / "data", package.parent / "data"):
        if (directory / "tiny-llama3").is_dir():
            return directory
    raise ValueError(f"no data directory in or beside {package}: install the package again, as a whole")
