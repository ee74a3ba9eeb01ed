"""What a figure depends on beside the model: processor, threads, versions."""

import importlib.metadata


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
