"""Part 2 - what is shown where the parameters are counted, step by step."""

import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.config import LlamaConfig, RopeScaling, ffn_hidden_dim
from decoding_llama3.inspect import probe
from decoding_llama3.json_files import read_json
from decoding_llama3.lessons.figures import config as figures
from decoding_llama3.lessons.figures import config_scale
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.transformer import Transformer

# Where a sentence is looked at on its way through a model, from the bottom to the top. What reads the same rows
# stands side by side; norms are left out, because they change no shape. Where no module is named, the rows are
# those that the next one reads.
STAGES = {
    "embedding": ("tok_embeddings",),
    "wq, wk, wv": ("layers.0.attention.wq", "layers.0.attention.wk", "layers.0.attention.wv"),
    "attention": (),
    "wo": ("layers.0.attention",),
    "w_gate, w_up": ("layers.0.feed_forward.w_gate", "layers.0.feed_forward.w_up"),
    "their product": (),
    "w_down": ("layers.0.feed_forward",),
    "after all blocks": ("norm",),
    "output": ("output",),
}
READ_BY = {
    "attention": lambda block: block.attention.wo.weight.shape[1],
    "their product": lambda block: block.feed_forward.w_down.weight.shape[1],
}


def toy_lookup(words: Sequence[str], table: Float[Tensor, "vocab dim"], ids: Int[Tensor, " seq"]) -> None:
    """A table small enough to be checked by eye, and what a text of these ids becomes."""
    twice = [words[i] for i, count in Counter(ids.tolist()).items() if count > 1]
    same = f"; '{twice[0]}' gets the same row each time" if twice else ""
    title = f"{len(ids)} ids pick {len(ids)} rows of {table.shape[1]} numbers{same}"
    alt = "Left a table of words with numbers, right the rows that the text picks, joined by lines."
    show_figure(figures.draw_toy_lookup(words, table, ids, title), alt)


def embedded_rows(subject: Subject, text: str) -> None:
    """What the embedding makes of a text: a row of numbers per token."""
    ids = subject.ids(text)
    rows = subject.model.tok_embeddings(ids)[0].float().cpu()
    token, count = Counter(ids[0, 1:].tolist()).most_common(1)[0]
    same = [place for place, i in enumerate(ids[0].tolist()) if i == token] if count > 1 else []
    words = subject.words(text)
    found = f"{words[same[0]]!r} stands {count} times, with the same row" if same else "no token stands twice"
    title = f"{len(words)} ids become {len(words)} rows of {rows.shape[1]:,} numbers; {found}"
    alt = "A strip of colours per token of the sentence, one column per feature; equal tokens have equal strips."
    show_figure(figures.draw_embedded_rows(words, rows, same, title), alt)


def block_matrices(config: LlamaConfig, *names: str) -> None:
    """Some matrices of a block, to scale, with the count of their numbers."""
    lengths = config_scale.strips(config)
    total = config.dim * sum(lengths[name] for name in names)
    longest, shortest = max(names, key=lengths.__getitem__), min(names, key=lengths.__getitem__)
    ratio = lengths[longest] / lengths[shortest]
    size = "all equally large" if ratio == 1 else f"{longest} is {ratio:g} times {shortest}"
    title = f"{', '.join(names)}: {total:,} parameters per block; {size}"
    alt = "The matrices as rectangles beside each other, their sides true to scale."
    show_figure(config_scale.draw_block_matrices(config, names, title), alt)


def width_rule(dim: int, multiplier: float, multiple_of: int, other_multiple: int) -> None:
    """The feed-forward's width by `dim`, as the rule has it before rounding and after."""
    dims = list(range(dim - 512, dim + 513, 8))
    widths = {
        "8/3 dim, times the multiplier": [int(multiplier * (8 * d // 3)) for d in dims],
        f"up to a multiple of {multiple_of:,}": [ffn_hidden_dim(d, multiple_of, multiplier) for d in dims],
        f"up to a multiple of {other_multiple:,}": [ffn_hidden_dim(d, other_multiple, multiplier) for d in dims],
    }
    unrounded, rounded = int(multiplier * (8 * dim // 3)), ffn_hidden_dim(dim, multiple_of, multiplier)
    title = f"{unrounded:,} is rounded up to {rounded:,}, a multiple of {multiple_of:,}"
    alt = "A straight line of the width by dim, and two staircases that never lie below it."
    show_figure(figures.draw_width_rule(dims, widths, (dim, unrounded, rounded), title), alt)


def shapes_by_step(text: str, subject: Subject, name: str, config: LlamaConfig) -> None:
    """What the rows of a text become in a model at hand, and in one of which only the configuration is."""
    ids, panels = subject.ids(text), {}
    with torch.device("meta"):  # tensors with shapes and without memory
        shapes_alone = {subject.name: Transformer(subject.model.config), name: Transformer(config)}
    for label, model in shapes_alone.items():
        with probe.recording(model, [place for places in STAGES.values() for place in places]) as record:
            model(torch.empty(ids.shape, dtype=torch.long, device="meta"))
        stages = [figures.Rung("ids", (1,))]
        for stage, places in STAGES.items():
            widths = [record.outputs[place].shape[-1] for place in places] or [READ_BY[stage](model.layers[0])]
            inside = not places or places[0].startswith("layers")
            stages.append(figures.Rung(stage, widths, added=inside and len(places) == 1, inside=inside))
        panels[label] = stages, model.config.n_layers
    title = f"{ids.shape[1]} tokens are {ids.shape[1]} rows all the way; only the length of a row changes"
    alt = (
        "From the bottom up, the rows of the sentence as bundles of lines, one per token, as long as wide; "
        "what reads the same rows stands side by side, and a plus marks where rows are added."
    )
    show_figure(figures.draw_shapes_by_step(panels, ids.shape[1], title), alt)


def count_elsewhere(config_json: str, expected: int) -> None:
    """Hugging Face's own model of this `config.json` has as many parameters; prints the result."""
    if not importlib.util.find_spec("transformers"):
        print("compared with nobody: pip install transformers, and run this again")
        return
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        theirs = LlamaForCausalLM(TheirConfig(**read_json(config_json, "config.json")[0]))
    assert sum(p.numel() for p in theirs.parameters()) == expected
    print(f"Hugging Face's model: {expected:,}")


def changed_fields(subject: Subject, text: str) -> dict[str, str]:
    """One field after the other gets another value, the weights stay: what loads, what runs, and with which loss.

    Returns the outcome of each by the field's name.
    """
    c, ids, weights = subject.model.config, subject.ids(text), subject.model.state_dict()
    scaling = RopeScaling(factor=8.0, original_context=c.max_seq_len)
    changes = (
        {"vocab_size": c.vocab_size - 96},
        {"dim": 2 * c.dim},
        {"n_layers": c.n_layers - 1},
        {"hidden_dim": c.hidden_dim + 256},
        {"head_dim": 2 * c.head_dim},
        {"n_heads": c.n_heads // 2, "head_dim": 2 * c.head_dim},
        {"n_kv_heads": c.n_heads - 1},
        {"n_kv_heads": c.n_kv_heads // 2},
        {"n_heads": c.n_heads // 2, "n_kv_heads": c.n_kv_heads // 2, "head_dim": 2 * c.head_dim},
        {"rope_theta": c.rope_theta / 100},
        {"rope_scaling": scaling},
        {"norm_eps": 0.1},
        {"tie_embeddings": not c.tie_embeddings},
        {"max_seq_len": 16},
    )
    before = probe.loss_of(subject.model, ids)
    rows, outcomes = [["none", "", "loads and runs", f"{before:.2f}"]], {}
    for change in changes:
        found, loss = _outcome(c, change, weights, ids)
        names = ", ".join(change)
        values = ", ".join("factor 8" if value is scaling else str(value) for value in change.values())
        rows.append([names, values, found, loss])
        outcomes[f"{names} = {values}"] = f"{found} {loss}".strip()
    show_table(rows, ["changed", "to", "what happens", "loss (nats per token)"])
    return outcomes


def _outcome(config: LlamaConfig, change: dict, weights: dict[str, Tensor], ids: Tensor) -> tuple[str, str]:
    try:
        with torch.device("meta"):
            model = Transformer(dataclasses.replace(config, **change))
    except ValueError as error:
        return f"refused: {str(error).partition(':')[0]}", ""
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    for name in {**found, **expected}:
        if found.get(name) != expected.get(name):
            wanted = f"should be {expected[name]}" if name in expected else "has no place"
            return f"does not load: {name}, {found.get(name, 'missing')}, {wanted}", ""
    model.load_state_dict(weights, assign=True)
    return "loads and runs", f"{probe.loss_of(model, ids):.2f}"
