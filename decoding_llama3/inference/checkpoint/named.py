"""Models that are called by a name: tiny of the package, smollm2, those of Ollama and of the hub."""

import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from decoding_llama3.inference.checkpoint.hub_cache import cached_model
from decoding_llama3.inference.data import cache_directory, data_directory
from decoding_llama3.json_files import read_json, shown

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
_REGISTRY, _LIBRARY = "registry.ollama.ai", "library"
_MODEL_LAYER = "application/vnd.ollama.image.model"
_PART = r"[A-Za-z0-9][\w.-]{0,79}"
_OLLAMA_NAME = re.compile(rf"(?:(?:({_PART})/)?({_PART})/)?({_PART})(?::({_PART}))?")


def named_model(name: str | PathLike) -> Path | None:
    """The directory or file of "tiny", "smollm2", or a model that Ollama has pulled or `download` fetched.

    None if it is no such name. A path that exists goes before the names of Ollama and the hub. A model that is
    named but not whole raises ValueError.
    """
    if name == "tiny":
        return data_directory() / "tiny-llama3"
    if name == "smollm2":
        return smollm2_file()
    if isinstance(name, PathLike) or os.path.lexists(name):
        return None
    return _ollama_model(name) or cached_model(name)


def smollm2_file() -> Path:
    """Where SmolLM2 lies in the user's cache; raises ValueError where it has not been downloaded."""
    file = cache_directory() / "smollm2" / SMOLLM2
    if not file.is_file():
        raise ValueError(
            "smollm2 is not on this machine yet: run 'decoding-llama3 download smollm2', once (93 MB)"
        )
    return file


def ollama_models() -> Iterator[str]:
    """The names of the models that Ollama has pulled, as it lists them."""
    for manifests in (store / "manifests" for store in _ollama_stores()):
        for file in sorted(manifests.glob("*/*/*/*")):
            host, user, model, tag = file.relative_to(manifests).parts
            short = "" if user == _LIBRARY else f"{user}/"
            yield (f"{host}/{user}/" if host != _REGISTRY else short) + f"{model}:{tag}"


def _ollama_model(name: str) -> Path | None:
    parts = _OLLAMA_NAME.fullmatch(name)
    if parts is None:
        return None
    host, user, model, tag = (parts[1] or _REGISTRY, parts[2] or _LIBRARY, parts[3], parts[4] or "latest")
    for store in _ollama_stores():
        manifest = store / "manifests" / host / user / model / tag
        if manifest.is_file():
            return _blob(store, manifest)
    return None


def _ollama_stores() -> list[Path]:
    """Where Ollama keeps models: its own setting, a user's, the service's."""
    set_by_user = os.environ.get("OLLAMA_MODELS")
    if set_by_user:
        return [Path(set_by_user)]
    return [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def _blob(store: Path, manifest: Path) -> Path:
    """The GGUF file that a manifest names by its digest; ValueError if there is none, or not all of it."""
    layers = read_json(manifest, manifest.name)[0].get("layers")
    layers = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    models = [layer for layer in layers if layer.get("mediaType") == _MODEL_LAYER]
    digest = models[0].get("digest") if len(models) == 1 else None
    if not isinstance(digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(
            f"{manifest} names {len(models)} models, by {shown(digest)}: expected one, by its SHA-256"
        )
    blob, size = store / "blobs" / digest.replace(":", "-"), models[0].get("size")
    if not blob.is_file() or blob.stat().st_size != size:
        raise ValueError(f"{blob} is not the whole file that {manifest} names: pull the model again with Ollama")
    return blob
