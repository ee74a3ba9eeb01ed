"""The cache of the Hugging Face Hub, which several programs share: models by their names, and what is not whole.

It holds models--OWNER--NAME/snapshots/COMMIT/FILE, each file a link into blobs/, and refs/main with a commit.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

HUB_NAME = re.compile(r"(?=.{3,96}$)([A-Za-z0-9_][\w.-]*)/([A-Za-z0-9_][\w.-]*)", re.ASCII)  # OWNER/NAME


def hub_cache() -> Path:
    """Where the package huggingface_hub keeps what it downloads: its settings are read as it reads them."""
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(shared, "huggingface")
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(own or os.path.join(home, "hub"))))


def folder_in_cache(name: str) -> Path:
    """The folder of the model OWNER/NAME in the cache, whether it is there or not."""
    return hub_cache() / f"models--{name.replace('/', '--')}"


def cached_model(name: str) -> Path | None:
    """The directory or the GGUF file of OWNER/NAME in the cache; None where no such model was downloaded.

    The snapshot of its main branch is taken, and the only one where that is not there. ValueError where there are
    several.
    """
    if not HUB_NAME.fullmatch(name):
        return None
    places = {snapshot: _models_in(snapshot) for snapshot in _snapshots(folder_in_cache(name))}
    places = {snapshot: models for snapshot, models in places.items() if models}
    main = _main(folder_in_cache(name))
    if main not in places and len(places) > 1:
        raise ValueError(
            f"the cache has several versions of {name}, and none of its main branch: pass one of them, such as "
            f"{next(iter(places))}"
        )
    snapshot = main if main in places else next(iter(places), None)
    if snapshot is None:
        return None
    return places[snapshot][0] if len(places[snapshot]) == 1 else snapshot


def cached_models() -> Iterator[tuple[str, Path]]:
    """The name OWNER/NAME and the place, a directory or a GGUF file, of every model in the cache."""
    for folder in sorted(hub_cache().glob("models--*--*")):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        yield from ((name, place) for snapshot in _snapshots(folder) for place in _models_in(snapshot))


def download_again(path: Path, what: str = "it") -> str:
    """What to do where a file or folder is not whole: in the cache, the command that completes it."""
    elsewhere = f"download {what} again"
    try:
        folder, snapshots, commit, *inside = path.relative_to(hub_cache()).parts
    except ValueError:
        return elsewhere
    name = folder.removeprefix("models--").replace("--", "/", 1)
    if snapshots != "snapshots" or not HUB_NAME.fullmatch(name):
        return elsewhere
    main = _main(hub_cache() / folder)
    revision = "" if main is None or main.name == commit else f" --revision {commit}"
    file = f" --file {'/'.join(inside)}" if path.suffix == ".gguf" else ""
    return f"run 'decoding-llama3 download {name}{revision}{file}' again"


def _snapshots(folder: Path) -> list[Path]:
    return sorted(folder.glob("snapshots/*/"))


def _main(folder: Path) -> Path | None:
    """The snapshot of the main branch, as it was when it was last downloaded."""
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return folder / "snapshots" / commit if re.fullmatch(r"\w+", commit) else None


def _models_in(snapshot: Path) -> list[Path]:
    """What can be loaded of a snapshot: a checkpoint, whole or not, or else each GGUF file."""
    formats = (
        (snapshot, "config.json", "*.safetensors"),
        (snapshot, "params.json", "consolidated.*.pth"),
        (snapshot / "original", "params.json", "consolidated.*.pth"),
    )
    configured = [(place, weights) for place, config, weights in formats if (place / config).is_file()]
    if with_weights := [place for place, weights in configured if any(place.glob(weights))]:
        return with_weights[:1]
    return sorted(snapshot.rglob("*.gguf")) or [place for place, _ in configured[:1]]
