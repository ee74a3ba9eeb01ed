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
    logits, cache = needs["logits after every token"][-1], needs["cache"][-1]
    title = (
        f"{name}: weights {formats['bfloat16']:.1f} GB; at {lengths[-1]:,} tokens the cache is {cache:.1f}, "
        f"and the logits after every token would be {logits:.1f}"
    )
    alt = "Left bars of the weights in four number formats, right stacked bars by context, two cards as lines."
    show_figure(figures.draw_memory_need(formats, lengths, needs, title), alt)
    return needs


def widest_bytes(config: LlamaConfig, tokens: int, itemsize: int = 2) -> int:
    """Bytes at work at once in a feed-forward: the stream, its normalised copy, gate, up and their product."""
    return tokens * (2 * config.dim + 3 * config.hidden_dim) * itemsize


def equal_work() -> dict[str, float]:
    """Kept trainings with the same work, 8.2e13 FLOPs each; returns how far the shapes of a group lie apart."""
    with (data_directory() / "tiny-llama3" / "shapes.csv").open(encoding="utf-8") as file:
        runs = [{key: float(value) for key, value in run.items()} for run in csv.DictReader(file)]
    same = [run for run in runs if 8e13 < run["flops"] < 9e13]
    again = next(run["bits_per_byte"] for run in same if run["seed"] != 3)
    groups = {
        "depth or width": _named(same, [(3, 352, 4096), (6, 256, 4096), (12, 192, 4096)])
        | {"6 x 256, another seed": again},
        "vocabulary": _named(same, [(6, 256, 2048), (6, 256, 4096), (6, 256, 8192)]),
        "size": _named(same, [(6, 192, 4096), (6, 256, 4096), (6, 320, 4096)]),
    }
    apart = {group: max(found.values()) - min(found.values()) for group, found in groups.items()}
    longer = {run["vocab_size"]: run["bits_per_byte"] for run in runs if run["flops"] > 1e14}
    pairs = {
        "8.2e13 FLOPs": tuple(list(groups["vocabulary"].values())[1:]),
        "3.3e14 FLOPs": (longer[4096], longer[8192]),
    }
    title = "At equal work the shapes lie apart: " + ", ".join(
        f"{group} {gap:.3f}" for group, gap in apart.items()
    )
    alt = "Left dots of bits per byte for shapes in three groups; right two lines between two vocabularies."
    show_figure(figures.draw_equal_work(groups, pairs, f"{title} bits per byte"), alt)
    read = sorted(
        (run["tokens"], run["dim"], run["bits_per_byte"])
        for run in runs
        if (run["layers"], run["vocab_size"], run["seed"]) == (6, 4096, 3) and run["flops"] < 1e14
    )
    compared = [row for row in read if row[1] == 256] + [row for row in read if row[1] == 192][:1]
    words = (
        f"6 x {dim:.0f}: {bits:.3f} after {tokens / 1e6:.2f} million tokens"
        for tokens, dim, bits in sorted(compared)
    )
    print("; ".join(words))
    return apart


def _named(runs: Sequence[dict[str, float]], shapes: Sequence[tuple[int, int, int]]) -> dict[str, float]:
    """Bits per byte of these shapes (blocks, dim, vocabulary), seed 3, by their names."""
    found = {}
    for blocks, dim, vocabulary in shapes:
        (run,) = (
            run for run in runs
            if (run["layers"], run["dim"], run["vocab_size"], run["seed"]) == (blocks, dim, vocabulary, 3)
        )  # fmt: skip
        found[f"{blocks} x {dim}, {vocabulary:,}"] = run["bits_per_byte"]
    return found


def tied_saving() -> float:
    """The share of its parameters that the model of the lab saves by tying."""
    settings = ablation.Settings()
    untied, tied = (
        sum(p.numel() for p in ablation.build_variant(ablation.Variant(tying=kind), 0, 96, settings).parameters())
        for kind in ("untied", "tied")
    )
    return 1 - tied / untied
