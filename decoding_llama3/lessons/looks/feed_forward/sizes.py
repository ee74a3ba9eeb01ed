"""Part 6 - what the feed-forward network costs."""

import dataclasses
import statistics
import time

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.lessons.figures import feed_forward as figures
from decoding_llama3.lessons.show import show_figure, show_table


def hidden_widths(dim: int, multiplier: float, multiple_of: int) -> int:
    """The width of a feed-forward network by Meta's rule, step by step; returns the last."""
    wide = 4 * dim
    cut = 2 * wide // 3
    more = int(multiplier * cut)
    rounded = multiple_of * -(-more // multiple_of)
    widths = {
        "4 · dim": wide,
        "times 2/3, for a third matrix": cut,
        f"times {multiplier:g}": more,
        f"up to a multiple of {multiple_of:,}": rounded,
    }
    title = f"From {wide:,} to {rounded:,}: {rounded / dim:.2f} times dim"
    alt = "Four bars, one for each step of the rule, with the width after it."
    show_figure(figures.draw_hidden_widths(widths, title), alt)
    return rounded


def matrix_timings(dim: int = 1024, hidden_dim: int = 3584, repeats: int = 5) -> dict[int, float]:
    """The median time of a feed-forward network for one token and for many, on this machine.

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
        milliseconds = found[tokens] = 1e3 * statistics.median(seconds)
        rate = 2 * tokens * 3 * dim * hidden_dim / (1e6 * milliseconds)
        rows.append([tokens, f"{milliseconds:.2f} ms", f"{milliseconds / tokens:.3f} ms", f"{rate:.0f} GFLOP/s"])
    header = ["tokens at once", "time", "per token", "work per second"]
    show_table(rows, header, f"{dim:,} to {hidden_dim:,} to {dim:,}, float32, median of {repeats}")
    return found
