"""Part 6 - what the feed-forward network costs."""

import dataclasses
import time

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.lessons.show import show_table


def matrix_timings(dim: int = 1024, hidden_dim: int = 3584, repeats: int = 10) -> dict[int, float]:
    """The shortest time of a feed-forward network for one token and for many, on this machine.

    Returns the milliseconds by the number of tokens.
    """
    config = dataclasses.replace(LlamaConfig.from_preset("llama3-8b"), dim=dim, hidden_dim=hidden_dim)
    part = FeedForward(config)
    rows, found = [], {}
    for tokens in (1, 8, 64, 256):
        x, seconds = torch.randn(tokens, dim, generator=torch.Generator().manual_seed(0)), []
        part(x)
        for _ in range(repeats):
            start = time.perf_counter()
            part(x)
            seconds.append(time.perf_counter() - start)
        milliseconds = found[tokens] = 1e3 * min(seconds)
        rate = 2 * tokens * 3 * dim * hidden_dim / (1e6 * milliseconds)
        rows.append([tokens, f"{milliseconds:.2f} ms", f"{milliseconds / tokens:.3f} ms", f"{rate:.0f}"])
    header = ["tokens at once", "time", "per token", "billion operations per second"]
    show_table(rows, header, f"{dim:,} to {hidden_dim:,} to {dim:,}, float32, the shortest of {repeats}")
    return found
