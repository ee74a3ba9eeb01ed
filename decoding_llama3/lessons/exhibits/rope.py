"""Part 4 - exhibits of the bug museum on rotary embeddings."""

import copy
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from decoding_llama3.config import LlamaConfig, RopeScaling
from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, tale
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def half_split(weight: Tensor, head_dim: int) -> Tensor:
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _halves(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    broken, tokens = copy.deepcopy(model), tale(tokenizer)
    for layer in broken.layers:
        for name in ("attention.wq", "attention.wk"):
            weight = layer.get_parameter(f"{name}.weight")
            weight.copy_(half_split(weight, model.config.head_dim))
    off = (broken(tokens) - model(tokens))[0].abs().amax(dim=-1)
    yield f"every shape fits; loss {loss_of(model, tokens):.1f} before, {loss_of(broken, tokens):.1f} now"
    first, others = off[0] < 1e-3, (off[1:] < 1e-3).all()
    yield f"the logits after the first token are right: {bool(first)}; after the others: {bool(others)}"


def _drift(right: Transformer, broken: Transformer, tokens: Tensor) -> Iterator[str]:
    theirs, ours = right(tokens)[0], broken(tokens)[0]
    off = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)
    for start, end in ((1, 8), (8, 64), (64, tokens.shape[1])):
        yield f"tokens {start:3} to {end - 1:3}: logits wrong by {off[start:end].mean():.1%}"


def without_scaling(config: LlamaConfig) -> LlamaConfig:
    return dataclasses.replace(config, rope_scaling=None)


def _scaling_forgotten(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64)
    right = Transformer(dataclasses.replace(model.config, rope_scaling=scaling)).eval()
    broken = Transformer(without_scaling(right.config)).eval()
    for net in (right, broken):
        net.load_state_dict(model.state_dict())
    yield "a model whose config.json has a rope_scaling; fine on short prompts, worse on long ones"
    yield from _drift(right, broken, tale(tokenizer, 3)[:, :400])


def rounded_frequencies(head_dim: int, theta: float) -> Tensor:
    return rope_frequencies(head_dim, theta).bfloat16().float()


def _rounded(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    query = torch.randn(1, 128, generator=torch.Generator().manual_seed(0))
    yield "an 8B (pairs 64, theta 500,000) after model.to(torch.bfloat16); short prompts are fine"
    for position in (10, 100, 1000, 8000):
        right, ours = (
            apply_rope(query, rope_rotation(frequencies(128, 500_000.0), torch.tensor([position])))
            for frequencies in (rope_frequencies, rounded_frequencies)
        )
        cosine = torch.cosine_similarity(ours, right).item()
        yield f"a query at position {position:5,}: cosine to where it should point {cosine:.2f}"


EXHIBITS = {
    "halves": Exhibit(
        _halves,
        ("theta is wrong", "rows of wq and wk lie in the other order of pairs", "values were rotated, too"),
        "b",
        "The first token attends to itself alone, so no rotation can harm it. A wrong theta would leave it right, "
        "too, but near tokens would suffer less than far ones.",
        half_split,
    ),
    "scaling_forgotten": Exhibit(
        _scaling_forgotten,
        ("positions are not advanced", "frequencies were rounded", "the scaling of slow pairs is missing"),
        "c",
        "Slow pairs turn eight times too fast. Over short distances that is hardly seen.",
        without_scaling,
    ),
    "rounded_frequencies": Exhibit(
        _rounded,
        ("the frequencies were rounded to bfloat16", "the cache is too short", "pairs lie in the other order"),
        "a",
        "An error of a frequency is multiplied by the position. Compute frequencies and angles in float32.",
        rounded_frequencies,
    ),
}
