"""The models that lie on this machine: by which name each is loaded, and what it is."""

from collections.abc import Iterator

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.find import checkpoint_path, open_checkpoint
from decoding_llama3.inference.checkpoint.hub_cache import cached_models
from decoding_llama3.inference.checkpoint.named import named_model, ollama_models


def models_found() -> Iterator[tuple[str, str]]:
    """A name or path, as `load_model` takes it, and a line about the model, or why it cannot be loaded."""
    names = ["tiny", "smollm2", *_of_the_hub(), *ollama_models()]
    yield from ((name, _about(name)) for name in names)


def _of_the_hub() -> Iterator[str]:
    """A model goes by its name; another version of it, or another GGUF file, by its path."""
    for name, place in cached_models():
        try:
            meant = named_model(name)
        except ValueError:  # several, none of them the main one
            meant = None
        yield name if meant == place else str(place)


def _about(name: str) -> str:
    try:
        config, place = open_checkpoint(name).config, checkpoint_path(name)
    except ValueError as error:
        return f"not loaded: {error}"
    return f"{_size(config)} parameters, context {config.max_seq_len:,} tokens, in {place}"


def _size(config: LlamaConfig) -> str:
    millions = config.n_params / 1e6
    return f"{millions:,.1f} M" if millions < 1000 else f"{millions / 1000:,.1f} B"
