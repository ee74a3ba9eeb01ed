"""Part 2 - what is shown of memory, and of what else the same work could buy."""

import csv
from collections.abc import Sequence

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments import ablation
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inference.memory import weight_bytes
from decoding_llama3.lessons.figures import config_models as figures
from decoding_llama3.lessons.show import show_figure

GB = 1e9


def memory_need(name: str, config: LlamaConfig, lengths: Sequence[int]) -> dict[str, list[float]]:
    """GB of weights by number format, and of all that a text of some lengths needs in bfloat16; returns these."""
    formats = {
        "float32": weight_bytes(config, torch.float32) / GB,
        "bfloat16": weight_bytes(config, torch.bfloat16) / GB,
        "int8": weight_bytes(config, torch.bfloat16, "int8") / GB,
        "4 bits": config.n_params / 2 / GB,
    }
    needs = {
        "weights": [formats["bfloat16"]] * len(lengths),
        "cache": [config.kv_cache_bytes(length) / GB for length in lengths],
        "inside a feed-forward": [widest_bytes(config, length) / GB for length in lengths],
        "logits after every token": [4 * length * config.vocab_size / GB for length in lengths],
    }
    scores = 2 * config.n_heads * lengths[-1] ** 2 / GB
    logits, cache = needs["logits after every token"][-1], needs["cache"][-1]
    title = (
        f"{name}: weights {formats['bfloat16']:.1f} GB; at {lengths[-1]:,} tokens the cache is {cache:.1f}, "
        f"and the logits after every token would be {logits:.1f}"
    )
    alt = "Left bars of the weights in four number formats, right stacked bars by context, two cards as lines."
    show_figure(figures.draw_memory_need(formats, lengths, needs, scores, title), alt)
    return needs


def widest_bytes(config: LlamaConfig, tokens: int, itemsize: int = 2) -> int:
    """Bytes at work at once in a feed-forward: the stream, its normalised copy, gate, up and their product."""
    return tokens * (2 * config.dim + 3 * config.hidden_dim) * itemsize


def equal_work() -> dict[str, float]:
    """Kept trainings with the same work, 8.2e13 FLOPs each; returns how far the shapes of a group lie apart.

    Prints what the larger vocabulary is worth, then and after four times the work.
    """
    with (data_directory() / "tiny-llama3" / "shapes.csv").open(encoding="utf-8") as file:
        runs = [{key: float(value) for key, value in run.items()} for run in csv.DictReader(file)]
    bits = {_shape(run): run["bits_per_byte"] for run in runs if 8e13 < run["flops"] < 9e13}
    own = bits[6, 256, 4096, 3]
    groups = {
        "tiny's shape": {"6 blocks, dim 256": own, "another seed": bits[6, 256, 4096, 4]},
        "depth or width": {
            "3 blocks, dim 352": bits[3, 352, 4096, 3],
            "12 blocks, dim 192": bits[12, 192, 4096, 3],
        },
        "vocabulary": {f"vocabulary {size:,}": bits[6, 256, size, 3] for size in (2048, 8192)},
        "size": {f"6 blocks, dim {dim}": bits[6, dim, 4096, 3] for dim in (192, 320)},
    }
    apart = {group: max(own, *found.values()) - min(own, *found.values()) for group, found in groups.items()}
    found = {name: value for group in groups.values() for name, value in group.items()}
    title = (
        f"At equal work '{min(found, key=found.__getitem__)}' has learned most; depth against width makes "
        f"{apart['depth or width']:.3f} bits per byte"
    )
    alt = (
        "Left dots of bits per byte for shapes in groups, a dashed line at tiny's shape; right lines of bits per "
        "byte by the tokens read, one per width, the work written at each point."
    )
    show_figure(figures.draw_equal_work(groups, own, _by_tokens(runs), title), alt)
    longer = {run["vocab_size"]: run["bits_per_byte"] for run in runs if run["flops"] > 1e14}
    print(
        f"vocabulary 8,192 is ahead of 4,096 by {own - bits[6, 256, 8192, 3]:.3f} bits per byte, and after four "
        f"times the work by {longer[4096] - longer[8192]:.3f}"
    )
    return apart


def _shape(run: dict[str, float]) -> tuple[float, ...]:
    """What names a run: blocks, dim, vocabulary, seed."""
    return tuple(run[key] for key in ("layers", "dim", "vocab_size", "seed"))


def _by_tokens(runs: Sequence[dict[str, float]]) -> dict[str, dict[float, tuple[float, str]]]:
    """Bits per byte by the tokens read, and the work, for each width of six blocks of which there are two runs."""
    found = {}
    for dim in (256, 192, 320):
        chosen = [run for run in runs if _shape(run) == (6, dim, 4096, 3)]
        ordered = sorted(chosen, key=lambda run: run["tokens"])
        found[f"dim {dim}"] = {
            run["tokens"]: (run["bits_per_byte"], f"{round(2 * run['flops'] / 8.2e13) / 2:g}x") for run in ordered
        }
    return found


def tied_saving() -> float:
    """The share of its parameters that the model of the lab saves by tying."""
    settings = ablation.Settings()
    untied, tied = (
        sum(p.numel() for p in ablation.build_variant(ablation.Variant(tying=kind), 0, 96, settings).parameters())
        for kind in ("untied", "tied")
    )
    return 1 - tied / untied
