"""The memory that a model takes, the memory that there is, and the precision in which the one fits into the other.

All sums are in bytes, and told in GiB (2^30 bytes).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.devices import choose_dtype
from decoding_llama3.presets import PRESETS

CACHED = 8192  # tokens that a model should have room for, or its whole context where that is shorter


@dataclass(frozen=True)
class Fit:
    """A precision in which a model fits, and the bytes that it needs so."""

    dtype: torch.dtype
    quantize: str | None
    needed: int

    def __str__(self) -> str:
        return self.quantize or name_of(self.dtype)


def name_of(dtype: torch.dtype) -> str:
    """bfloat16, not torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def gib(n_bytes: int | float) -> str:
    """Bytes in words, in GiB."""
    n = n_bytes / 2**30
    return f"{n:,.2f} GiB" if n >= 0.1 else f"{n:.2g} GiB"


def free_bytes(device: str | torch.device) -> int:
    """Memory that a model could take now: of the card, or of the machine."""
    kind = torch.device(device).type
    if kind == "cuda":
        # What torch has taken from the card and does not use: a deleted model's, for example.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    free = psutil.virtual_memory().available
    if kind == "mps":  # shares the machine's memory, and may take a part of it
        free = min(free, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return free


def needed_bytes(
    config: LlamaConfig,
    dtype: torch.dtype,
    quantize: str | None = None,
    length: int | None = None,
    batch: int = 1,
) -> int:
    """Weights, the cache of `batch` texts of `length` tokens, and a tenth of the whole for activations.

    Without `length` a text has 8,192 tokens, or as many as the context where that is shorter. A context that
    the model does not have raises ValueError.
    """
    cache = config.kv_cache_bytes(_length(config, length), batch, dtype)
    return math.ceil((weight_bytes(config, dtype, quantize) + cache) / 0.9)


def weight_bytes(config: LlamaConfig, dtype: torch.dtype, quantize: str | None = None) -> int:
    """Weights alone. With `quantize="int8"` a matrix has one byte per weight and four, a scale, per row."""
    if quantize is None:
        return config.n_params * dtype.itemsize
    heads = config.n_heads + 2 * config.n_kv_heads  # that have rows: queries, keys and values
    layer_rows = heads * config.head_dim + config.dim + 2 * config.hidden_dim + config.dim
    rows = config.n_layers * layer_rows + config.vocab_size * (1 if config.tie_embeddings else 2)
    norms = (2 * config.n_layers + 1) * config.dim
    return config.n_params - norms + 4 * rows + norms * dtype.itemsize  # scales are float32


def find_fit(
    config: LlamaConfig, dtype: torch.dtype, free: int, length: int | None = None, batch: int = 1
) -> Fit | None:
    """The policy: the first that fits into `free` bytes of `dtype`, int8 with it, int8 with 16 bits; else None.

    `dtype` is what the device computes in best. A model in int8 keeps norms and cache in the dtype beside it.
    """
    narrow = torch.bfloat16 if dtype == torch.float32 else dtype
    for kind, quantize in ((dtype, None), (dtype, "int8"), (narrow, "int8")):
        needed = needed_bytes(config, kind, quantize, length, batch)
        if needed <= free:
            return Fit(kind, quantize, needed)
    return None


def choose_fit(config: LlamaConfig, device: str | torch.device, length: int | None = None, batch: int = 1) -> Fit:
    """`find_fit` in the free memory of `device`; raises ValueError, with what would fit, if the model does not."""
    dtype, free = choose_dtype(device), free_bytes(device)
    fit = find_fit(config, dtype, free, length, batch)
    if fit is None:
        dtype = torch.bfloat16 if dtype == torch.float32 else dtype
        needed = needed_bytes(config, dtype, "int8", length, batch)
        wanted = Fit(dtype, "int8", needed)
        raise ValueError(f"{_lack(config, device, wanted, free, length, batch)}: {_largest(device, free)}")
    return fit


def count_cards(
    config: LlamaConfig,
    dtype: torch.dtype,
    quantize: str | None,
    free: int,
    length: int | None = None,
    batch: int = 1,
) -> int | None:
    """How many cards of `free` bytes hold the model, its heads shared out evenly; None if no number does."""
    needed = needed_bytes(config, dtype, quantize, length, batch)
    counts = (n for n in range(1, config.n_kv_heads + 1) if config.n_kv_heads % n == 0)
    return next((n for n in counts if needed / n <= free), None)


def llama3_presets() -> dict[str, LlamaConfig]:
    """Llama 3's own models, one of each size, from the smallest to the largest."""
    sizes: dict[int, str] = {}
    for name in filter(lambda name: name.startswith("llama3"), PRESETS):
        sizes.setdefault(LlamaConfig.from_preset(name).n_params, name)
    return {sizes[n]: LlamaConfig.from_preset(sizes[n]) for n in sorted(sizes)}


def largest_preset(dtype: torch.dtype, free: int) -> str:
    """The largest Llama 3 that fits into `free` bytes, in words; else tiny; else none."""
    presets = {"tiny": LlamaConfig.from_preset("tiny")} | llama3_presets()
    for name, config in reversed(presets.items()):
        if fit := find_fit(config, dtype, free):
            return f"{name} in {fit}"
    return "none, not even tiny"


def check_memory(
    config: LlamaConfig,
    device: str | torch.device,
    dtype: torch.dtype,
    quantize: str | None = None,
    length: int | None = None,
    batch: int = 1,
) -> None:
    """Raise ValueError, with what would fit, if a model with its cache does not fit into the free memory."""
    free, needed = free_bytes(device), needed_bytes(config, dtype, quantize, length, batch)
    if needed <= free:
        return
    options = _narrower(choose_dtype(device), dtype, quantize)
    fitting = (how for how, option in options if needed_bytes(config, *option, length, batch) <= free)
    remedy = next((f"use {how}" for how in fitting), None) or _largest(device, free)
    wanted = Fit(dtype, quantize, needed)
    raise ValueError(f"{_lack(config, device, wanted, free, length, batch)}: {remedy}")


def _narrower(
    native: torch.dtype, dtype: torch.dtype, quantize: str | None
) -> Iterator[tuple[str, tuple[torch.dtype, str | None]]]:
    """Arguments of `load_model` that take less memory, in words and as they are."""
    half = torch.float16 if native == torch.float16 else torch.bfloat16
    yield "quantize='int8'", (dtype, "int8")
    yield f"dtype={half}", (half, quantize)
    yield f"dtype={half} with quantize='int8'", (half, "int8")


def _largest(device: str | torch.device, free: int) -> str:
    return f"the largest preset that fits is {largest_preset(choose_dtype(device), free)}"


def _lack(
    config: LlamaConfig, device: str | torch.device, wanted: Fit, free: int, length: int | None, batch: int
) -> str:
    tokens = f"{'' if batch == 1 else f'{batch:,} texts of '}{_length(config, length):,} tokens"
    return (
        f"the model needs {gib(wanted.needed)} on {device} in {wanted} (weights, the cache of {tokens}, a "
        f"tenth for activations), but {gib(free)} are free"
    )


def _length(config: LlamaConfig, length: int | None) -> int:
    if length is None:
        return min(CACHED, config.max_seq_len)
    if not 0 < length <= config.max_seq_len:
        raise ValueError(
            f"found a context of {length:,} tokens, but this model reads 1 to {config.max_seq_len:,}: name as many"
        )
    return length
