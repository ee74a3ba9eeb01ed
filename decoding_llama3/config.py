"""Part 2 - configuration: every number that fixes the shape of a Llama 3 (Meta 2024, arXiv:2407.21783)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike

import torch

from decoding_llama3.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Long-context scaling of Llama 3.1 to 3.3 (see `rope.scale_frequencies`); the context is in tokens."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must exceed low_freq_factor {self.low_freq_factor}"
            )


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Architecture of one model. Every instance is checked; wrong values raise ValueError, wrong types TypeError.

    Field names follow Meta's `params.json`, except `hidden_dim` (feed-forward width, given there by a rule,
    see `ffn_hidden_dim`), `tie_embeddings` and `rope_scaling`. `max_seq_len` is the context in tokens.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    hidden_dim: int
    vocab_size: int
    norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False
    max_seq_len: int = 8192

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} is not divisible by n_heads {self.n_heads}: heads share it evenly")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}: "
                "every key/value head serves equally many query heads"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim {self.head_dim} (dim / n_heads) is odd, but RoPE rotates pairs of features"
            )

    @classmethod
    def from_preset(cls, name: str) -> LlamaConfig:
        """One of `PRESETS`, for example "llama3-8b"."""
        if name not in PRESETS:
            raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
        scaling = PRESETS[name]["rope_scaling"]
        return cls(**PRESETS[name] | {"rope_scaling": scaling and RopeScaling(**scaling)})

    @classmethod
    def from_params_json(cls, text_or_path: str | PathLike, vocab_size: int | None = None) -> LlamaConfig:
        """Meta's `params.json`, as text or path; `vocab_size` replaces the -1 of Llama 2's files."""
        from decoding_llama3.config_files import read_params_json  # it imports this file

        return read_params_json(text_or_path, vocab_size)

    @classmethod
    def from_huggingface(cls, text_or_path: str | PathLike) -> LlamaConfig:
        """Hugging Face's `config.json` of a Llama or Mistral, as text or path."""
        from decoding_llama3.config_files import read_huggingface

        return read_huggingface(text_or_path)

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def queries_per_kv(self) -> int:
        """Query heads that share one key/value head: 4 in the 8B, 8 in the 70B."""
        return self.n_heads // self.n_kv_heads

    @property
    def n_params(self) -> int:
        """Weights of the whole model, a tied embedding counted once."""
        attention = 2 * self.dim * self.head_dim * (self.n_heads + self.n_kv_heads)
        layer = attention + 3 * self.dim * self.hidden_dim + 2 * self.dim
        vocabulary = self.vocab_size * self.dim * (1 if self.tie_embeddings else 2)
        return vocabulary + self.n_layers * layer + self.dim

    def kv_cache_bytes(self, seq_len: int, batch: int = 1, dtype: torch.dtype = torch.bfloat16) -> int:
        """Bytes of the keys and values of `seq_len` tokens in all layers, for `batch` sequences."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * dtype.itemsize * seq_len * batch


def ffn_hidden_dim(dim: int, multiple_of: int, multiplier: float | None = None) -> int:
    """SwiGLU width by Meta's rule: 2/3 of 4 * dim, times `multiplier`, rounded up to `multiple_of`.

    Both products are cut to whole numbers before the next step, as in Meta's code.
    """
    hidden = 2 * 4 * dim // 3
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return multiple_of * -(-hidden // multiple_of)


def _check_positive(config: LlamaConfig | RopeScaling) -> None:
    wanted = {"int": int, "float": (int, float), "bool": bool}
    for field in fields(config):
        kind, value = wanted.get(field.type), getattr(config, field.name)
        if kind is None:
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{field.name} must be {field.type}, found {value!r}")
        if kind is not bool and not 0 < value < float("inf"):
            raise ValueError(f"{field.name} must be positive, found {value}")
