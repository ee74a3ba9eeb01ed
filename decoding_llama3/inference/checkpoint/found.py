"""The models that lie on this machine: by which name each is loaded, and what it is."""

import os
from collections.abc import Iterator
from pathlib import Path

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.find import checkpoint_path, read_config
from decoding_llama3.inference.checkpoint.named import ollama_models


def models_found() -> Iterator[tuple[str, str]]:
    """A name or path, as `load_model` takes it, and a line about the model, or why it cannot be loaded."""
    yield "tiny", _about("tiny")
    yield "smollm2", _about("smollm2")
    for folder in hub_snapshots():
        yield str(folder), _about(str(folder))
    for name in ollama_models():
        yield name, _about(name)


def hub_snapshots() -> Iterator[Path]:
    """The folders of models in the cache of the Hugging Face Hub that have a configuration."""
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or shared / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    for snapshot in sorted(cache.glob("models--*/snapshots/*")):
        if any((snapshot / name).is_file() for name in ("config.json", "params.json")):
            yield snapshot


def _about(name: str) -> str:
    try:
        config, place = read_config(name), checkpoint_path(name)
    except ValueError as error:
        return f"not loaded: {error}"
    return f"{_size(config)} parameters, context {config.max_seq_len:,} tokens, in {place}"


def _size(config: LlamaConfig) -> str:
    millions = config.n_params / 1e6
    return f"{millions:,.1f} M" if millions < 1000 else f"{millions / 1000:,.1f} B"
