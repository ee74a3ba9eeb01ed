"""What this machine can run: Python, torch, compiler, memory, device, and what is missing."""

import os
import platform
from collections.abc import Iterator

import psutil
import torch

from decoding_llama3.benchmark.machine import version
from decoding_llama3.inference.compile import find_compiler
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inference.devices import best_device, choose_dtype
from decoding_llama3.inference.memory import free_bytes, largest_preset
from decoding_llama3.inference.tokenizer_files import load_tokenizer

OPTIONAL = {  # what it is for, and how to get it
    "jupyterlab": "the notebooks: pip install 'decoding-llama3[lab]'",
    "tokenizers": "training a vocabulary: pip install 'decoding-llama3[train]'",
    "transformers": "the comparison with Hugging Face: pip install 'decoding-llama3[test]'",
}


def machine() -> Iterator[tuple[str, str]]:
    """Rows of (what, finding)."""
    device = best_device()
    dtype = choose_dtype(device)
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    yield "compiler", find_compiler() or "none: compile=True stays eager; install g++ or clang"
    memory = psutil.virtual_memory()
    yield "memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB available"
    yield "device", torch.cuda.get_device_name() if device == "cuda" else device
    yield "dtype", str(dtype).removeprefix("torch.")
    yield "largest model", largest_preset(dtype, free_bytes(device))
    yield "tiny", f"in {data_directory()}"
    yield "Llama 3 tokenizer", _found_tokenizer()
    for package, purpose in OPTIONAL.items():
        yield package, version(package) or f"missing; for {purpose}"


def _found_tokenizer() -> str:
    try:
        return f"{load_tokenizer('llama3').n_vocab:,} tokens, from llama-models {version('llama-models')}"
    except ValueError as error:
        return str(error)
