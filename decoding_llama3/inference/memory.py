"""The memory that a model takes, and the memory that there is."""

import math

import psutil
import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.devices import choose_dtype
from decoding_llama3.presets import PRESETS

CACHED = 8192  # tokens that a model should have room for, or its whole context where that is shorter


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


def needed_bytes(config: LlamaConfig, dtype: torch.dtype, quantize: str | None = None) -> int:
    """Weights and the cache of min(8192, context) tokens, and a tenth of the whole for activations."""
    cache = config.kv_cache_bytes(min(CACHED, config.max_seq_len), dtype=dtype)
    return math.ceil((weight_bytes(config, dtype, quantize) + cache) / 0.9)


def weight_bytes(config: LlamaConfig, dtype: torch.dtype, quantize: str | None = None) -> int:
    """Weights alone. With `quantize="int8"` a matrix has one byte a weight and one scale a row."""
    if quantize is None:
        return config.n_params * dtype.itemsize
    heads = config.n_heads + 2 * config.n_kv_heads  # that have rows: queries, keys and values
    layer_rows = heads * config.head_dim + config.dim + 2 * config.hidden_dim + config.dim
    rows = config.n_layers * layer_rows + config.vocab_size * (1 if config.tie_embeddings else 2)
    norms = (2 * config.n_layers + 1) * config.dim
    return config.n_params - norms + 4 * rows + norms * dtype.itemsize  # scales are float32


def largest_preset(dtype: torch.dtype, free: int) -> str:
    """The largest preset that fits into `free` bytes in `dtype`, else in int8, in words."""
    for how, quantize in ((str(dtype).removeprefix("torch."), None), ("int8", "int8")):
        configs = {name: LlamaConfig.from_preset(name) for name in PRESETS}
        fitting = [name for name, config in configs.items() if needed_bytes(config, dtype, quantize) <= free]
        if fitting:
            return f"{max(fitting, key=lambda name: configs[name].n_params)} in {how}"
    return "none, not even tiny"


def check_memory(
    config: LlamaConfig, device: str | torch.device, dtype: torch.dtype, quantize: str | None = None
) -> None:
    """Raise ValueError, with what would fit, if a model with its cache does not fit into the free memory."""
    free = free_bytes(device)
    needed = needed_bytes(config, dtype, quantize)
    if needed <= free:
        return
    half = torch.float16 if choose_dtype(device) == torch.float16 else torch.bfloat16
    options = {"quantize='int8'": (dtype, "int8"), f"dtype={half}": (half, quantize)}
    options[f"dtype={half} with quantize='int8'"] = (half, "int8")
    fitting = next((how for how, option in options.items() if needed_bytes(config, *option) <= free), None)
    remedy = f"use {fitting}" if fitting else f"the largest preset that fits is {largest_preset(half, free)}"
    tokens = min(CACHED, config.max_seq_len)
    raise ValueError(
        f"the model needs {needed / 2**30:.2f} GiB on {device} in {quantize or dtype} (weights, the "
        f"cache of {tokens:,} tokens, a tenth for activations), but {free / 2**30:.2f} GiB are free: {remedy}"
    )
