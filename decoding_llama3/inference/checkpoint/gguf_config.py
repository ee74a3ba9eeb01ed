"""The settings of a GGUF file that describe a Llama, in the words of `LlamaConfig`."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoding_llama3.config import LlamaConfig, RopeScaling
from decoding_llama3.config_schema import SIZE, THETA, Setting, check
from decoding_llama3.json_files import shown
from decoding_llama3.rope import rope_frequencies, scale_frequencies

_WIDTH = Setting("an integer", 1, SIZE, required=True)
_OPTIONAL = Setting("an integer", 1, SIZE)
_SETTINGS = {
    "llama.embedding_length": _WIDTH,
    "llama.block_count": Setting("an integer", 1, 10_000, required=True),
    "llama.attention.head_count": _WIDTH,
    "llama.attention.head_count_kv": _OPTIONAL,
    "llama.attention.key_length": _OPTIONAL,
    "llama.attention.value_length": _OPTIONAL,
    "llama.attention.layer_norm_rms_epsilon": Setting("a number", 1e-20, 1, required=True),
    "llama.attention.sliding_window": _OPTIONAL,
    "llama.feed_forward_length": _WIDTH,
    "llama.context_length": _WIDTH,
    "llama.vocab_size": _OPTIONAL,
    "llama.rope.dimension_count": _OPTIONAL,
    "llama.rope.freq_base": THETA,
    "llama.rope.scaling.type": Setting("a string"),
    "llama.rope.scaling.original_context_length": _OPTIONAL,
}
_WITHOUT_EFFECT = ("llama.rope.scaling.finetuned", "llama.tensor_data_layout")


def config_in(
    settings: dict[str, Any], source: str, vocab_size: int, tied: bool, divisors: Tensor | None
) -> LlamaConfig:
    """The configuration of a model with an embedding of `vocab_size` rows, `tied` if that is its output, too.

    `divisors` is what the file divides each frequency of RoPE by, if it does. Another architecture, a setting that
    is not implemented, and one that contradicts another raise ValueError, which names the file as `source`.
    """
    found = _checked(settings, source)
    if found.get("llama.vocab_size", vocab_size) != vocab_size:
        raise ValueError(
            f"{source} sets llama.vocab_size to {found['llama.vocab_size']}, but its embedding has {vocab_size} "
            "rows: which of the two is right, only its author knows"
        )
    context, head_dim = found["llama.context_length"], _head_dim(found, source)
    try:
        config = LlamaConfig(
            dim=found["llama.embedding_length"],
            n_layers=found["llama.block_count"],
            n_heads=found["llama.attention.head_count"],
            n_kv_heads=found.get("llama.attention.head_count_kv", found["llama.attention.head_count"]),
            hidden_dim=found["llama.feed_forward_length"],
            vocab_size=vocab_size,
            norm_eps=_short(found["llama.attention.layer_norm_rms_epsilon"]),
            rope_theta=_short(found.get("llama.rope.freq_base", 10_000.0)),
            tie_embeddings=tied,
            max_seq_len=min(context, found.get("llama.attention.sliding_window", context)),
            head_dim=head_dim,
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if divisors is None or bool((divisors == 1).all()):
        return config
    original = found.get("llama.rope.scaling.original_context_length", 8192)
    return replace(config, rope_scaling=_rope_scaling(config, divisors, original, source))


def _checked(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """The settings of a Llama that are used here."""
    if settings.get("general.architecture") != "llama":
        found = shown(settings.get("general.architecture"))
        raise ValueError(f"{source} holds a model of the architecture {found}; only 'llama' is implemented here")
    stated = {key: value for key, value in settings.items() if key.startswith("llama.")}
    for key, value in stated.items():
        neutral = isinstance(value, (int, float, str)) and value in (0, 1, "none", "")
        if not neutral and key not in (*_SETTINGS, *_WITHOUT_EFFECT):
            raise ValueError(
                f"{source} sets {shown(key)} to {shown(value)}, which is not known here and may change the "
                "computation"
            )
    try:
        found = check(stated, _SETTINGS, source)
    except TypeError as error:  # the file's fault, not the caller's
        raise ValueError(str(error)) from None
    if (scaling := found.get("llama.rope.scaling.type", "none")) != "none":
        raise ValueError(f"{source} scales RoPE in the way {shown(scaling)}, which is not implemented here")
    return found


def _head_dim(found: dict[str, Any], source: str) -> int:
    """What the file says of it in up to three places; 0, for dim / n_heads, where it says nothing."""
    keys = ("llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count")
    stated = {key: found[key] for key in keys if key in found}
    if len(set(stated.values())) > 1:
        raise ValueError(f"{source} gives a head different sizes, {stated}: one for all three is implemented here")
    return next(iter(stated.values()), 0)


def _rope_scaling(config: LlamaConfig, divisors: Tensor, original_context: int, source: str) -> RopeScaling:
    """The scaling of Llama 3.1 to 3.3 whose frequencies are those divided by `divisors`."""
    freqs, factor = rope_frequencies(config.head_dim, config.rope_theta), divisors.max().item()
    if divisors.shape == freqs.shape and 1 < factor < 1e6:
        scaling = RopeScaling(factor=round(factor, 4), original_context=original_context)
        if torch.allclose(freqs / divisors, scale_frequencies(freqs, scaling), rtol=1e-5, atol=0):
            return scaling
    raise ValueError(f"{source} scales RoPE in a way that is not Llama 3.1's, the one that is implemented here")


def _short(number: float) -> float:
    """The shortest number that is this one in float32, as which the file holds it: 1e-05, not 9.999999747e-06."""
    return float(str(np.float32(number)))
