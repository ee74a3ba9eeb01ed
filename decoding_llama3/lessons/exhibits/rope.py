"""Part 4 - exhibits of the bug museum on rotary embeddings."""

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

import decoding_llama3 as dl
from decoding_llama3.config import LlamaConfig, RopeScaling
from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, Seen, as_built, checked, right_after, tale, yes
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation, scale_frequencies
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64)


def rows_of_heads(weight, head_dim):
    return weight  # in the file each head has first its even rows, then its odd ones


def scaled_frequencies(config):
    return dl.rope_frequencies(config.head_dim, config.rope_theta)


def rounded_frequencies(head_dim, theta):
    return dl.rope_frequencies(head_dim, theta).bfloat16().float()


def half_split(weight: Tensor, head_dim: int) -> Tensor:
    """The rows as Hugging Face's files have them: in each head first the even ones, then the odd ones."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _in_pairs(weight: Tensor, head_dim: int) -> Tensor:
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def _scaled(config: LlamaConfig) -> Tensor:
    assert config.rope_scaling is not None
    return scale_frequencies(rope_frequencies(config.head_dim, config.rope_theta), config.rope_scaling)


def _loaded(model: Transformer, tokenizer: Tokenizer, arranged: Callable[..., Tensor]) -> Seen:
    net, tokens = copy.deepcopy(model), tale(tokenizer)
    for layer in net.layers:
        for name in ("attention.wq", "attention.wk"):
            weight, head_dim = layer.get_parameter(f"{name}.weight"), model.config.head_dim
            weight.copy_(checked(arranged, lambda w, _: w)(half_split(weight, head_dim), head_dim))
    first, *later = right_after(net(tokens), model(tokens))
    alike = tokens[:, 1:2].repeat(1, 8)
    rows = {
        "loss on a tale, in nats per token": f"{loss_of(net, tokens):.1f}",
        "the logits after the first token are right": yes(first),
        f"right logits after the {len(later)} tokens that follow": str(sum(later)),
        "right logits in a text of one token, eight times": str(sum(right_after(net(alike), model(alike)))),
    }
    return Seen(rows, net(tokens))


def _read_from_config(model: Transformer, tokenizer: Tokenizer, frequencies: Callable[..., Tensor]) -> Seen:
    config, tokens = dataclasses.replace(model.config, rope_scaling=SCALING), tale(tokenizer, 3)[:, :400]
    turned = checked(frequencies, _scaled)(config)
    right, net = as_built(config), as_built(config)
    for each in (right, net):
        each.load_state_dict(model.state_dict())
    net.rotation_at = lambda positions: rope_rotation(turned, positions)
    return _drift(right(tokens), net(tokens))


def _drift(right: Tensor, found: Tensor) -> Seen:
    off, seq = (found - right)[0].norm(dim=-1) / right[0].norm(dim=-1), right.shape[1]
    rows = {
        f"logits after tokens {start} to {end - 1} are wrong by": f"{off[start:end].mean():.1%}"
        for start, end in ((1, 8), (8, 64), (64, seq))
    }
    return Seen(rows, found)


def _pointing(model: Transformer, tokenizer: Tokenizer, frequencies: Callable[..., Tensor]) -> Seen:
    query = torch.randn(1, 128, generator=torch.Generator().manual_seed(0))
    found, right = checked(frequencies, rope_frequencies)(128, 500_000.0), rope_frequencies(128, 500_000.0)
    rows = {}
    for at in (10, 100, 1000, 8000):
        ours, wanted = (apply_rope(query, rope_rotation(each, torch.tensor([at]))) for each in (found, right))
        cosine = torch.cosine_similarity(ours, wanted).item()
        rows[f"at position {at:,}: cosine to where the query should point"] = f"{cosine:.2f}"
    return Seen(rows, found / right)


EXHIBITS = {
    "4.1": Exhibit(
        "A model is loaded from a file. Every shape fits.",
        _loaded,
        {
            "the causal mask is missing": (
                "Without the mask the first token would see later ones, and the logits after it would change. "
                "They are right."
            ),
            "the rows of wq and wk lie in the other order of pairs": (
                "Queries and keys are turned in pairs that were never trained together. The first token attends "
                "to itself alone, and so does, in effect, one token that is repeated: there no rotation can do "
                "harm."
            ),
            "what attention passes on is rotated, too": (
                "One token repeated passes on one vector from every place; rotated, these would differ, and the "
                "logits of that text would be wrong. They are right."
            ),
            "positions start at 1, not at 0": (
                "RoPE depends on distances alone. If every position were one too high, all logits would be right."
            ),
        },
        "b",
        rows_of_heads,
        _in_pairs,
        "`weight` is that of wq or wk, (heads · head_dim, dim), in the order of the file. Return it with the rows "
        "of each pair side by side, in the order of `apply_rope`.",
    ),
    "4.2": Exhibit(
        "A model is loaded from its files and reads 400 tokens. Short prompts are fine, long ones are not.",
        _read_from_config,
        {
            "every position is one too high": "RoPE depends on distances alone, so all logits would be right.",
            "frequencies are rounded to bfloat16": (
                "That shifts an angle by less than half a percent, so the logits of these few hundred tokens "
                "would be wrong by less than 1%."
            ),
            "all pairs are slowed eightfold, fast ones included": (
                "Fast pairs tell near tokens apart. The logits after tokens 1 to 7 would be as wrong as the "
                "later ones."
            ),
            "slow pairs are not slowed, as rope_scaling asks": (
                "Slow pairs turn up to eight times too fast. Over short distances they hardly turn at all, so "
                "that is hardly seen."
            ),
        },
        "d",
        scaled_frequencies,
        _scaled,
        "`config` is a LlamaConfig with a `rope_scaling`. Return each pair's frequency, (pairs,), in float32.",
    ),
    "4.3": Exhibit(
        "One query of an 8B (head_dim 128, theta 500,000) is rotated at four positions.",
        _pointing,
        {
            "the frequencies were rounded to bfloat16": (
                "The error of a frequency is multiplied by the position. Compute frequencies and angles in "
                "float32."
            ),
            "theta is 10,000": (
                "Most pairs would turn faster from the start: at position 10 the cosine would be below 0.9 "
                "already."
            ),
            "the features of a pair lie half a head apart": (
                "Other features would be turned together at every position: at position 10 the cosine would be "
                "near 0.6 already."
            ),
            "every position is one too high": (
                "One position more is the same angle everywhere, so the cosine would be equal at all four "
                "positions."
            ),
        },
        "a",
        rounded_frequencies,
        rope_frequencies,
        "Return the frequency of each pair, theta^(-2i/head_dim), as a tensor (head_dim / 2,) in float32.",
        result="the frequencies",
        tolerance=1e-5,
    ),
}
