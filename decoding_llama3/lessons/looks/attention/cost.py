"""Part 5 - what is shown of what attention costs."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from matplotlib.figure import Figure

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.figures import attention_cost as figures
from decoding_llama3.lessons.show import is_slow, show_figure
from decoding_llama3.lessons.subject import Subject, present

CARD = 24 * 10**9  # bytes of memory
PEAK, BANDWIDTH = 989e12, 3.35e12  # an H100 SXM by its maker: bfloat16 operations, and bytes read, per second


def sharing(config: LlamaConfig, n_kv_heads: int, tokens: int = 8192) -> Figure:
    """The wiring of a model's queries with another number of keys and values, and what it means for a card.

    The weights are counted as they are: only the cache changes.
    """
    shared = dataclasses.replace(config, n_kv_heads=n_kv_heads)
    per_token, users = shared.kv_cache_bytes(1), users_on_card(config, n_kv_heads, tokens)
    kind = "MHA" if n_kv_heads == config.n_heads else "MQA" if n_kv_heads == 1 else "GQA"
    counted = f"{users} user{'' if users == 1 else 's'}"
    free, each = max(0, CARD - 2 * config.n_params) / 1e9, shared.kv_cache_bytes(tokens) / 1e9
    lines = (
        f"{per_token:,} bytes of cache per token, {each:.2f} GB for {tokens:,}",
        f"{free:.1f} GB beside the weights hold {free / each:.2f} such caches",
    )
    title = (
        f"{kind}, {n_kv_heads} for {config.n_heads} queries: {per_token:,} bytes per token, {counted} on a card"
    )
    return figures.draw_sharing(config.n_heads, n_kv_heads, lines, title)


def users_on_card(config: LlamaConfig, n_kv_heads: int, tokens: int) -> int:
    """How many texts of so many tokens have room beside the weights on a card, in bfloat16."""
    shared = dataclasses.replace(config, n_kv_heads=n_kv_heads)
    return max(0, CARD - 2 * config.n_params) // shared.kv_cache_bytes(tokens)


def cache_roofline(intensity: Mapping[str, float]) -> None:
    """What an H100 can compute, and where reading the cache of some models puts it, in operations per byte."""
    name = max(intensity, key=intensity.__getitem__)
    share = min(1.0, intensity[name] * BANDWIDTH / PEAK)
    title = f"Waiting for its cache, attention uses {share:.1%} of an H100's arithmetic at most, in {name}"
    alt = "A line that rises and then is level: what a card can compute; dots of models low on its slope."
    show_figure(figures.draw_roofline(PEAK, BANDWIDTH, intensity, title), alt)


def step_times(*subjects: Subject | None) -> dict[str, float]:
    """Time for one more token by how many stand before it, with a cache and without, on this machine.

    Returns, for each model, how many times as long it takes without a cache after the most tokens.
    """
    panels, ratios = {}, {}
    for subject in present(*subjects):
        slow = is_slow(subject.model)
        lengths = [16, 64, 160] if slow else [16, 64, 128, 256, 384, 511]
        seconds = times_of_a_step(subject, lengths, repeats=2 if slow else 7)
        panels[subject.name] = lengths, seconds
        without, cached = (values[-1] for values in seconds.values())
        ratios[subject.name] = without / cached
    told = [
        f"{name} after {panels[name][0][-1]} tokens {ratio:.0f} times as long" for name, ratio in ratios.items()
    ]
    title = f"Without a cache one more token takes {', '.join(told)}"
    alt = "For each model two lines of the time for one more token: level with a cache, rising without."
    show_figure(figures.draw_step_times(panels, title), alt)
    return ratios


def times_of_a_step(subject: Subject, lengths: Sequence[int], repeats: int) -> dict[str, list[float]]:
    """Seconds for one more token after so many, without a cache and with one: the shortest of some runs, for
    whatever else the machine does only adds to the time.
    """
    model, device = subject.model, subject.model.norm.weight.device
    ids = torch.randint(256, (1, max(lengths)), generator=torch.Generator().manual_seed(0)).to(device)
    seconds = {way: [math.inf] * len(lengths) for way in ("without a cache", "with a cache")}
    for _, (i, length) in itertools.product(range(repeats), enumerate(lengths)):
        # What fills the cache does not matter for the time, so it stays empty.
        caches = model.make_caches(batch=1, length=length)
        last = torch.arange(length - 1, length, device=device)
        ways = partial(model.hidden, ids[:, :length]), partial(model.hidden, ids[:, -1:], last, caches)
        for values, way in zip(seconds.values(), ways, strict=True):
            values[i] = min(values[i], seconds_of(way))
    return seconds


def seconds_of(way: Callable[[], torch.Tensor]) -> float:
    """How long one call takes, until its result is here."""
    start = time.perf_counter()
    way().float().cpu()
    return time.perf_counter() - start
