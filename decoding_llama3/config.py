"""Part 2 - configuration: every number that fixes a Llama 3 (Meta 2024, arXiv:2407.21783)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import torch

from decoding_llama3.config_files import add_unstated, read_huggingface, read_params_json
from decoding_llama3.presets import PRESETS


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Long-context scaling of Llama 3.1 to 3.3, see `scale_frequencies`; context in tokens.
    Wrong values raise ValueError, wrong types TypeError.
    """

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        _check_fields(self)
        if (high := self.high_freq_factor) <= (low := self.low_freq_factor):
            raise ValueError(f"high_freq_factor {high} must exceed low_freq_factor {low}")


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Architecture of one model. Wrong values raise ValueError, wrong types TypeError.

    Names follow Meta's `params.json`, which has no `tie_embeddings`, no `rope_scaling`, and a
    rule for `hidden_dim`, the feed-forward width. `max_seq_len` is the context in tokens.
    Without a `head_dim` it is dim / n_heads.
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
    head_dim: int = 0

    def __post_init__(self) -> None:
        _check_fields(self)
        if not self.head_dim and self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} is not divisible by n_heads {self.n_heads}")
        object.__setattr__(self, "head_dim", self.head_dim or self.dim // self.n_heads)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}: "
                "every key/value head serves equally many query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd, but RoPE rotates its pairs")

    @classmethod
    def from_preset(cls, name: str) -> LlamaConfig:
        """One of `PRESETS`, for example "llama3-8b"."""
        if name not in PRESETS:
            raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
        return cls._from_numbers(PRESETS[name], f"the preset {name}")

    @classmethod
    def from_params_json(
        cls,
        text_or_path: str | PathLike,
        vocab_size: int | None = None,
        rope_scaling: RopeScaling | None = None,
    ) -> LlamaConfig:
        """Meta's `params.json`, as text or path; `vocab_size` replaces -1, 'not set', in it.

        The file has no key for `rope_scaling`, `tie_embeddings`, `max_seq_len`: they are those
        of the presets of the same widths, so a Llama 3.2 with added tokens keeps its factor 32.
        A scaled RoPE of other widths raises ValueError, unless `rope_scaling` is passed.
        """
        stated, source = read_params_json(text_or_path, vocab_size)
        rule = stated["dim"], stated["multiple_of"], stated["ffn_dim_multiplier"]
        stated["hidden_dim"] = ffn_hidden_dim(*rule)
        numbers = add_unstated(stated, rope_scaling, PRESETS, source)
        return cls._from_numbers(numbers, source)

    @classmethod
    def from_huggingface(cls, text_or_path: str | PathLike) -> LlamaConfig:
        """Hugging Face's `config.json` of a Llama or Mistral, as text or path."""
        return cls._from_numbers(*read_huggingface(text_or_path))

    @classmethod
    def _from_numbers(cls, numbers: dict[str, Any], source: str) -> LlamaConfig:
        scaling: Any = numbers["rope_scaling"]
        try:
            scaling = RopeScaling(**scaling) if isinstance(scaling, dict) else scaling
            return cls(**{**numbers, "rope_scaling": scaling})
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

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

    def kv_cache_bytes(
        self, seq_len: int, batch: int = 1, dtype: torch.dtype = torch.bfloat16
    ) -> int:
        """Bytes of keys and values of `seq_len` tokens, all layers, for `batch` sequences."""
        bytes_per_token = 2 * self.n_layers * self.n_kv_heads * self.head_dim * dtype.itemsize
        return bytes_per_token * seq_len * batch


def ffn_hidden_dim(dim: int, multiple_of: int, multiplier: float | None = None) -> int:
    """SwiGLU width by Meta's rule: 2/3 of 4 dim, times `multiplier`, up to a `multiple_of`.

    Both products are cut to whole numbers before the next step, as in Meta's code.
    """
    hidden = 2 * 4 * dim // 3
    if multiplier is not None:
        hidden = int(multiplier * hidden)
    return multiple_of * -(-hidden // multiple_of)


def _check_fields(config: LlamaConfig | RopeScaling) -> None:
    kinds = {"int": int, "float": int | float, "bool": bool}
    largest = {"int": 2**28, "float": 1e38}  # torch can count the bytes of such a matrix
    for field in fields(config):
        value = getattr(config, field.name)
        kind = kinds.get(str(field.type), RopeScaling | None)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{field.name} must be {field.type}, found {value!r}")
        checked = field.type in largest and value != field.default
        if checked and not 0 < value <= largest[str(field.type)]:
            limit = f"at most {largest[str(field.type)]:,}"
            raise ValueError(f"{field.name} must be positive and {limit}, found {value}")
