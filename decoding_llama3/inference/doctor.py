"""What this machine can run: Python, torch, compiler, memory, device, and what is missing."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator

import psutil
import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint import choose_dtype, find_compiler
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inference.tokenizer_files import load_tokenizer
from decoding_llama3.presets import PRESETS

OPTIONAL = {  # what it is for, and how to get it
    "jupyterlab": "the notebooks: pip install 'decoding-llama3[lab]'",
    "tokenizers": "training a vocabulary: pip install 'decoding-llama3[train]'",
    "transformers": "the comparison with Hugging Face: pip install 'decoding-llama3[test]'",
}


def best_device() -> str:
    """cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def free_bytes(device: str) -> int:
    """Memory that a model could take now: of the card, or of the machine."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def machine() -> Iterator[tuple[str, str]]:
    """Rows of (what, finding)."""
    device = best_device()
    dtype, free = choose_dtype(device), free_bytes(device)
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    yield "compiler", find_compiler() or "none: compile=True stays eager; install g++ or clang"
    memory = psutil.virtual_memory()
    yield "memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB available"
    yield "device", torch.cuda.get_device_name() if device == "cuda" else device
    yield "dtype", str(dtype).removeprefix("torch.")
    yield "largest model", _largest_model(dtype, free)
    yield "tiny", f"in {data_directory()}"
    yield "Llama 3 tokenizer", _found_tokenizer()
    for package, purpose in OPTIONAL.items():
        yield package, _version(package) or f"missing; for {purpose}"


def _largest_model(dtype: torch.dtype, free: int) -> str:
    # Weights and the cache of 8,192 tokens; a tenth stays free for activations.
    def needs(config: LlamaConfig, bytes_a_weight: int) -> int:
        return config.n_params * bytes_a_weight + config.kv_cache_bytes(min(8192, config.max_seq_len), dtype=dtype)

    for how, size in ((str(dtype).removeprefix("torch."), dtype.itemsize), ("int8", 1)):
        fitting = [n for n in PRESETS if needs(LlamaConfig.from_preset(n), size) < 0.9 * free]
        if fitting:
            return f"{max(fitting, key=lambda name: LlamaConfig.from_preset(name).n_params)} in {how}"
    return "none: not even tiny fits"


def _found_tokenizer() -> str:
    try:
        return f"{load_tokenizer('llama3').n_vocab:,} tokens, from llama-models {_version('llama-models')}"
    except ValueError as error:
        return str(error)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
