"""Part 2 - a configuration drives a drawing."""

import math
from collections.abc import Mapping
from dataclasses import replace

from matplotlib.figure import Figure

from decoding_llama3.config import LlamaConfig
from decoding_llama3.lessons.figures import config_scale as figures
from decoding_llama3.lessons.show import show_figure
from decoding_llama3.lessons.subject import Subject, present

ALT = (
    "Left, the model as a building: the embedding is its ground floor, each block a floor, the output its roof; "
    "areas are true to parameters. Right, a block cut into seven matrices, and the fields that set their lengths."
)
ALT_CARD = f"{ALT} Below, a graphics card with the weights and the cache on it."
SMALL_CARD, LARGE_CARD = 24e9, 80e9  # bytes


def drawn(name: str, config: LlamaConfig) -> None:
    """The model of a configuration, to scale."""
    blocks = config.n_layers * block_params(config) / config.n_params
    title = f"{name}: {config.n_params:,} parameters, {blocks:.0%} of them in its {config.n_layers} blocks"
    show_figure(figures.draw_to_scale(config, title), ALT)


def moved(config: LlamaConfig, field: str, times: float) -> Figure:
    """The model of a configuration with one number multiplied: a field, or "tokens" or "texts" of the cache.

    `dim` takes `head_dim` with it, so that `n_heads` stays. The cards are those on which the model lay before.
    """
    tokens, texts = min(8192, config.max_seq_len), 1
    changed = config
    if field in ("tokens", "texts"):
        tokens, texts = (
            round(n * (times if field == name else 1)) for name, n in (("tokens", tokens), ("texts", 1))
        )
        value = tokens if field == "tokens" else texts
    else:
        value = round(getattr(config, field) * times)
        changed = replace(config, **{field: value}, head_dim=0 if field == "dim" else config.head_dim)
    before = load_of(config)
    load = replace(load_of(changed, tokens, texts), card=before.card, cards=before.cards)
    difference = (changed.n_params - config.n_params) / 1e9
    needed = figures.in_bytes(load.weights + load.cache)
    title = (
        f"{field} {value:,}: {changed.n_params / 1e9:.2f} billion parameters ({difference:+.2f}), "
        f"{needed} with the cache"
    )
    return figures.draw_to_scale(changed, title, load, before=config)


def towers(configs: Mapping[str, LlamaConfig], real: Subject | None = None) -> None:
    """Models side by side, from the smallest to the largest, all of one area; the real one among them."""
    found = {**configs, **{subject.name: subject.model.config for subject in present(real)}}
    models = dict(sorted(found.items(), key=lambda pair: pair[1].n_params))
    words = {
        name: (config, f"{millions(config.n_params)}\n{share_of_tables(config):.0%} in tables")
        for name, config in models.items()
    }
    low, high = (f(models, key=lambda name: share_of_tables(models[name])) for f in (min, max))
    title = (
        f"Equal areas: tables of tokens hold {share_of_tables(models[high]):.0%} of {high}, "
        f"{share_of_tables(models[low]):.0%} of {low}"
    )
    alt = (
        "Models as buildings side by side, all of the same area, low and broad or high and narrow; below each its "
        "parameters and the share of its tables."
    )
    show_figure(figures.draw_towers(words, title), alt)


def load_of(config: LlamaConfig, tokens: int | None = None, texts: int = 1) -> figures.Load:
    """Weights and cache in bfloat16 on a card of 24 GB, or on as many of 80 GB as are needed."""
    tokens = tokens or min(8192, config.max_seq_len)
    weights, cache = 2 * config.n_params, config.kv_cache_bytes(tokens, texts)
    card = SMALL_CARD if weights + cache <= SMALL_CARD else LARGE_CARD
    words = f"{texts} text{'s' if texts > 1 else ''} of {tokens:,} tokens"
    return figures.Load(weights, cache, card, math.ceil((weights + cache) / card), words)


def block_params(config: LlamaConfig) -> int:
    """Parameters of one block, its two norms included."""
    return config.dim * (sum(figures.strips(config).values()) + 2)


def share_of_tables(config: LlamaConfig) -> float:
    """The share of embedding and output in the parameters."""
    return config.vocab_size * config.dim * (1 if config.tie_embeddings else 2) / config.n_params


def millions(n_params: int) -> str:
    """A count of parameters in words: "5.6 million", "8.0 billion"."""
    size, unit = (1e9, "billion") if n_params >= 1e9 else (1e6, "million")
    return f"{n_params / size:.1f} {unit}" if n_params < 1e2 * size else f"{n_params / size:.0f} {unit}"
