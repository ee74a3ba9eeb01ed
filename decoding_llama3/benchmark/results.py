"""From the figures of every round to those that are reported: medians, ratios, common tokens."""

import statistics
from collections.abc import Sequence
from typing import Any

from decoding_llama3.benchmark.engines import OURS
from decoding_llama3.benchmark.huggingface import BASELINES


def medians(rounds: Sequence[Any]) -> Any:
    """Figures of the same form as each round's: the median of every number, the first of all else."""
    first = rounds[0]
    if isinstance(first, dict):
        return {key: medians([figures[key] for figures in rounds]) for key in first}
    return statistics.median(rounds) if isinstance(first, (int, float)) else first


def ratios(engines: dict[str, dict]) -> dict[str, dict[str, float]]:
    """How many times as fast each engine of ours is as the fastest baseline, by what both measured.

    {} without baselines.
    """
    speeds = {name: _speeds(figures) for name, figures in engines.items()}
    baselines = [speeds[name] for name in BASELINES if name in speeds]
    if not baselines:
        return {}
    best = {what: max(speed.get(what, 0) for speed in baselines) for what in baselines[0]}
    return {
        name: {what: speeds[name][what] / best[what] for what in best if what in speeds[name]}
        for name in OURS
        if name in speeds
    }


def common_tokens(engines: dict[str, dict], name: str) -> int:
    """How many greedy tokens `name` has in common with the first engine, from the first on."""
    first = next(iter(engines.values()))["greedy"]
    pairs = zip(first, engines[name]["greedy"], strict=True)
    return next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(first))


def _speeds(figures: dict) -> dict[str, float]:
    speeds = {"load": 1 / figures["load"], "first token": 1 / figures["first_token"]}
    for what in ("prefill", "decode"):
        speeds |= {f"{what} {n}": speed["tokens_per_s"] for n, speed in figures[what].items()}
    return speeds
