"""GGUF, the format of llama.cpp and Ollama: configuration, tokenizer and weights in one file.

Names of tensors as llama.cpp writes them (github.com/ggml-org/llama.cpp, gguf-py/gguf/constants.py). Its rows of
queries and keys are in Meta's order of pairs, which is ours.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.gguf_config import config_in
from decoding_llama3.inference.checkpoint.gguf_header import Place, read_header
from decoding_llama3.inference.checkpoint.names import Names
from decoding_llama3.inference.checkpoint.stored import Checkpoint, Stored
from decoding_llama3.json_files import shown

SUFFIX = ".gguf"
NAMES = Names(
    {
        "tok_embeddings": "token_embd",
        "layers": "blk",
        "attention.wq": "attn_q",
        "attention.wk": "attn_k",
        "attention.wv": "attn_v",
        "attention.wo": "attn_output",
        "feed_forward.w_gate": "ffn_gate",
        "feed_forward.w_up": "ffn_up",
        "feed_forward.w_down": "ffn_down",
        "attention_norm": "attn_norm",
        "norm": "output_norm",
    }
)
_ROPE_FACTORS = "rope_freqs.weight"
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PIECE = 2**24  # weights that are widened at once


def is_gguf(path: Path) -> bool:
    """Whether a file says of itself, by its name or its first letters, that it is GGUF."""
    if path.suffix == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def open_gguf(path: Path) -> Checkpoint:
    """The model in a GGUF file, no weight read yet. ValueError where it is damaged or no Llama.

    Blocks of quantised weights are read as float32, for which the package gguf must be there.
    """
    settings, places = read_header(path)
    config = _config(path, settings, places)
    tensors, unknown = {}, []
    for theirs, place in places.items():
        ours = NAMES.ours(theirs)
        if ours is None or theirs == _ROPE_FACTORS:
            unknown += [theirs] * (ours is None)
        else:
            dtype = _FLOATS.get(place.type.name, torch.float32)
            tensors[ours] = Stored(place.shape, dtype, partial(_read, path, place))
    if any(place.type.name not in _FLOATS for place in places.values()):
        _dequantize()  # said before any weight is read
    return Checkpoint(path, config, tensors, NAMES.theirs, tuple(unknown))


def read_gguf_config(path: Path) -> LlamaConfig:
    """The configuration in a GGUF file; ValueError as in `open_gguf`."""
    settings, places = read_header(path)
    return _config(path, settings, places)


def _config(path: Path, settings: dict[str, Any], places: dict[str, Place]) -> LlamaConfig:
    if (n_files := settings.get("split.count", 1)) not in (0, 1):
        raise ValueError(
            f"{path} is one of {shown(n_files)} files of a model, and one is read here: join them with "
            "llama-gguf-split --merge, a program of llama.cpp"
        )
    embedding, factors = places.get(NAMES.theirs("tok_embeddings.weight")), places.get(_ROPE_FACTORS)
    if embedding is None:
        raise ValueError(f"{path} lacks {NAMES.theirs('tok_embeddings.weight')!r}: is it a part of a model?")
    divisors = None if factors is None else _read(path, factors)
    return config_in(settings, str(path), embedding.shape[0], "output.weight" not in places, divisors)


def _read(path: Path, place: Place, keep: bool = False) -> Tensor:
    """A tensor, copied from the file; no map of it stays open, so `keep` changes nothing."""
    content = np.fromfile(path, np.uint8, place.n_bytes, offset=place.start)
    if len(content) < place.n_bytes:
        raise ValueError(f"{path} has become shorter since it was opened: load it anew")
    if place.type.name in _FLOATS:
        return torch.from_numpy(content).view(_FLOATS[place.type.name]).view(place.shape)
    dequantize = _dequantize()
    weights = torch.empty(place.shape)
    n_blocks = _PIECE // place.type.n_weights
    pieces = weights.view(-1).split(n_blocks * place.type.n_weights)
    for i, piece in enumerate(pieces):
        row = content[i * n_blocks * place.type.n_bytes :][: n_blocks * place.type.n_bytes]
        piece.copy_(torch.from_numpy(dequantize(row, place.type.name)))  # one row: the library loops over rows
    return weights


def _dequantize() -> Any:
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        raise ValueError(
            "quantised weights in a GGUF file need the package gguf: pip install 'decoding-llama3[real]'"
        ) from None
    return lambda blocks, name: quants.dequantize(blocks, GGMLQuantizationType[name])
