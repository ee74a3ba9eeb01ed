"""The rows of `info`: what this machine runs and how, what is missing, and what any model needs."""

import os
import platform
from collections.abc import Callable, Iterator

import psutil
import torch

from decoding_llama3.benchmark.machine import version
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.compile import find_compiler
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inference.devices import best_device, choose_dtype, native_dtype
from decoding_llama3.inference.memory import (
    count_cards,
    find_fit,
    free_bytes,
    gib,
    llama3_presets,
    name_of,
    needed_bytes,
    weight_bytes,
)
from decoding_llama3.inference.tokenizers.find import load_tokenizer

Rows = Iterator[tuple[str, str]]

OPTIONAL = {  # what it is for, and how to get it
    "jupyterlab": "the notebooks: pip install 'decoding-llama3[lab]'",
    "tokenizers": "training a vocabulary: pip install 'decoding-llama3[train]'",
    "transformers": "the comparison with Hugging Face: pip install 'decoding-llama3[test]'",
}
CARDS = {  # kind, capability and the GiB that a program may take: of a card what torch reports as its total
    "T4": ("cuda", (7, 5), 14.56),
    "L4": ("cuda", (8, 9), 22.0),
    "A100, 40 GB": ("cuda", (8, 0), 39.4),
    "A100, 80 GB": ("cuda", (8, 0), 79.1),
    "H100": ("cuda", (9, 0), 79.1),
    "laptop, 16 GB": ("cpu", None, 10.0),  # what the system and a browser leave
}
PRECISIONS = ((torch.float32, None), (torch.bfloat16, None), (torch.bfloat16, "int8"))


def info_rows(config: LlamaConfig | None, context: int | None = None, batch: int = 1) -> Rows:
    """Rows of (what, finding): of this machine without `config`, else what `batch` texts of `context` tokens need.

    A context or batch without a model, or a context that the model does not have, raises ValueError.
    """
    if config is not None:
        return model_rows(config, context, batch)
    if context is not None or batch != 1:
        raise ValueError("found --context or --batch without a model: name one, as in 'info llama3-8b --batch 4'")
    return machine_rows()


def machine_rows() -> Rows:
    """The machine, each of Llama 3's models on it, what is installed."""
    device = best_device()
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    yield "compiler", find_compiler() or "none: compile=True stays eager; install g++ or clang"
    memory = psutil.virtual_memory()
    yield "memory", f"{gib(memory.total)}, {gib(memory.available)} available"
    yield from _devices(device)
    dtype, free = choose_dtype(device), free_bytes(device)
    yield "dtype", name_of(dtype)
    for name, config in llama3_presets().items():
        yield name, describe(config, dtype, free, is_card=device == "cuda")
    yield "tiny", f"in {data_directory()}"
    yield "Llama 3 tokenizer", _found_tokenizer()
    for package, purpose in OPTIONAL.items():
        yield package, version(package) or f"missing; for {purpose}"


def model_rows(config: LlamaConfig, context: int | None = None, batch: int = 1) -> Rows:
    """The configuration, its memory, and how this machine and common ones run it."""
    needed_bytes(config, torch.bfloat16, None, context, batch)  # a context it does not have raises before any row
    for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size"):
        yield name, f"{getattr(config, name):,}"
    for name in ("norm_eps", "rope_theta", "rope_scaling", "tie_embeddings"):
        yield name, str(getattr(config, name))
    yield "context", f"{config.max_seq_len:,} tokens"
    yield "parameters", f"{config.n_params:,}"
    yield "weights", _in_each(lambda dtype, quantize: weight_bytes(config, dtype, quantize))
    full = gib(config.kv_cache_bytes(config.max_seq_len))
    yield "KV cache", f"{config.kv_cache_bytes(1):,} bytes per token, {full} at full context, in bfloat16"
    length = min(8192, config.max_seq_len) if context is None else context
    yield (
        f"{batch:,} x {length:,} tokens",
        _in_each(lambda dtype, quantize: needed_bytes(config, dtype, quantize, length, batch)),
    )
    device = best_device()
    dtype, free = choose_dtype(device), free_bytes(device)
    yield f"here, on {device}", describe(config, dtype, free, device == "cuda", length, batch)
    for name, (kind, capability, memory) in CARDS.items():
        dtype, free = native_dtype(kind, capability), int(memory * 2**30)
        yield name, describe(config, dtype, free, kind == "cuda", length, batch)


def describe(
    config: LlamaConfig,
    dtype: torch.dtype,
    free: int,
    is_card: bool,
    length: int | None = None,
    batch: int = 1,
) -> str:
    """How a device of that dtype and memory runs a model: in which precision, or on how many such cards."""
    fit = find_fit(config, dtype, free, length, batch)
    found = [f"{fit}, {gib(fit.needed)} of {gib(free)}"] if fit else []
    if is_card and (fit is None or fit.quantize):
        wide = count_cards(config, dtype, None, free, length, batch)
        narrow = count_cards(config, dtype, "int8", free, length, batch)
        found += [f"{name_of(dtype)} on {wide} such cards"] if wide else []
        found += [f"int8 on {narrow} such cards"] if narrow and 1 < narrow != wide else []
    if found:
        return "; ".join(found)
    needed = gib(needed_bytes(config, dtype if is_card else torch.bfloat16, "int8", length, batch))
    return f"does not fit: int8 needs {needed}, " + (
        f"more than {config.n_kv_heads} such cards have" if is_card else f"but {gib(free)} are free"
    )


def _devices(device: str) -> Rows:
    if device != "cuda":
        yield "device", device
    for i in range(torch.cuda.device_count() if device == "cuda" else 0):
        major, minor = torch.cuda.get_device_capability(i)
        memory = f"{gib(torch.cuda.mem_get_info(i)[1])}, {gib(free_bytes(torch.device('cuda', i)))} available"
        yield f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, capability {major}.{minor}, {memory}"


def _in_each(count: Callable[[torch.dtype, str | None], int]) -> str:
    """Bytes in each precision, in words."""
    parts = (f"{gib(count(*how))} in {how[1] or name_of(how[0])}" for how in PRECISIONS)
    return ", ".join(parts)


def _found_tokenizer() -> str:
    try:
        return f"{load_tokenizer('llama3').n_vocab:,} tokens, from llama-models {version('llama-models')}"
    except ValueError as error:
        return str(error)
