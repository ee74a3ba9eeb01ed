"""One thing, four names: ours, Meta's, Hugging Face's and the papers'; and the line of our source."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from decoding_llama3.attention import Attention
from decoding_llama3.config import LlamaConfig
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.lessons.show import show_table
from decoding_llama3.norm import RMSNorm
from decoding_llama3.transformer import Transformer, TransformerBlock


@dataclass(frozen=True)
class Name:
    """`kind` is "weight" (a name in the file of weights, with its {i}-th block) or "setting"."""

    stem: str
    kind: str
    ours: str
    meta: str
    huggingface: str
    symbol: str
    owner: Callable


NAMES = (
    Name("config", "setting", "dim", "dim", "hidden_size", "d_model", LlamaConfig),
    Name("config", "setting", "n_layers", "n_layers", "num_hidden_layers", "L, N", LlamaConfig),
    Name("config", "setting", "n_heads", "n_heads", "num_attention_heads", "h", LlamaConfig),
    Name("config", "setting", "n_kv_heads", "n_kv_heads", "num_key_value_heads", "G", LlamaConfig),
    Name("config", "setting", "vocab_size", "vocab_size", "vocab_size", "V", LlamaConfig),
    Name("norm", "setting", "norm_eps", "norm_eps", "rms_norm_eps", "ε", LlamaConfig),
    Name("rope", "setting", "rope_theta", "rope_theta", "rope_theta", "θ, base", LlamaConfig),
    Name("norm", "weight", "norm.weight", "norm.weight", "model.norm.weight", "g", RMSNorm),
    Name(
        "norm",
        "weight",
        "layers.{i}.attention_norm.weight",
        "layers.{i}.attention_norm.weight",
        "model.layers.{i}.input_layernorm.weight",
        "g",
        TransformerBlock,
    ),
    Name(
        "norm",
        "weight",
        "layers.{i}.ffn_norm.weight",
        "layers.{i}.ffn_norm.weight",
        "model.layers.{i}.post_attention_layernorm.weight",
        "g",
        TransformerBlock,
    ),
    *(
        Name(
            "attention",
            "weight",
            f"layers.{{i}}.attention.w{x}.weight",
            f"layers.{{i}}.attention.w{x}.weight",
            f"model.layers.{{i}}.self_attn.{x}_proj.weight",
            f"W^{x.upper()}",
            Attention,
        )
        for x in "qkvo"
    ),
    *(
        Name(
            "feed_forward",
            "weight",
            f"layers.{{i}}.feed_forward.w_{ours}.weight",
            f"layers.{{i}}.feed_forward.{meta}.weight",
            f"model.layers.{{i}}.mlp.{ours}_proj.weight",
            symbol,
            FeedForward,
        )
        for ours, meta, symbol in (("gate", "w1", "W"), ("up", "w3", "V"), ("down", "w2", "W₂"))
    ),
    Name(
        "transformer",
        "weight",
        "tok_embeddings.weight",
        "tok_embeddings.weight",
        "model.embed_tokens.weight",
        "E",
        Transformer,
    ),
    Name("transformer", "weight", "output.weight", "output.weight", "lm_head.weight", "U, E^T", Transformer),
)


def source_line(name: Name) -> str:
    """File and line of the package where our name is set, for example "norm.py:12".

    Raises ValueError where nothing sets it.
    """
    lines, first = inspect.getsourcelines(name.owner)
    word = name.ours.removesuffix(".weight").rpartition(".")[2]
    word = "weight" if name.owner is RMSNorm else word
    wanted = f"{word}:" if name.kind == "setting" else f"self.{word} ="
    offset = next((i for i, line in enumerate(lines) if line.strip().startswith(wanted)), None)
    if offset is None:
        raise ValueError(f"{name.owner.__name__} no longer sets {word}: name it anew in rosetta.py")
    return f"{name.owner.__module__.rpartition('.')[2]}.py:{first + offset}"


def rows(stem: str | None = None) -> Iterator[list[str]]:
    """The table's rows, of one part or, without `stem`, of all."""
    for name in NAMES:
        if stem in (None, name.stem):
            yield [name.ours, name.meta, name.huggingface, name.symbol, source_line(name)]


def show_names(stem: str | None = None) -> None:
    """Display the names of a part's weights and settings, or of all."""
    show_table(rows(stem), ["here", "Meta", "Hugging Face", "papers", "set in"])
