"""Part 7 - exhibits of the bug museum on the whole model."""

import dataclasses
from collections.abc import Iterator

import torch

from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, opening, tale
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def _standing_still(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, first = opening(tokenizer), 9
    whole, right = model(tokens), []
    caches = model.make_caches(batch=1, length=tokens.shape[1])
    model(tokens[:, :first], torch.arange(first), caches)
    for i in range(first, tokens.shape[1]):
        step = step_without_counting(model, tokens[:, i : i + 1], first, caches)
        right.append((step[0, 0] - whole[0, i]).abs().max() < 1e-3)
    yield f"a prompt of {first} tokens is read well, and the first new token, too"
    yield f"of the {len(right)} new tokens, right are: {int(sum(right))}"


def step_without_counting(model, token, prompt_length, caches):
    return model(token, torch.tensor([prompt_length]), caches)


def _first_loss(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, blind = tale(tokenizer), torch.tensor(float(model.config.vocab_size)).log().item()
    fresh = Transformer(model.config)
    large_weights(fresh)
    loss = loss_of(fresh, tokens)
    yield f"before the first step of training: loss {loss:.0f}; knowing nothing costs {blind:.1f}"


def large_weights(model):
    generator = torch.Generator().manual_seed(0)
    model.tok_embeddings.weight.normal_(std=0.3, generator=generator)
    model.output.weight = model.tok_embeddings.weight


def load_with_assign(model, state):
    model.load_state_dict(state, assign=True)


def _untied(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tied = Transformer(dataclasses.replace(model.config, tie_embeddings=True))
    before = sum(p.numel() for p in tied.parameters())
    state = {name: weight.clone() for name, weight in tied.state_dict().items()}
    load_with_assign(tied, state)
    after, tokens = sum(p.numel() for p in tied.parameters()), opening(tokenizer)
    plain = Transformer(tied.config)
    plain.load_state_dict(state)
    same = torch.allclose(tied(tokens), plain(tokens), atol=1e-4)
    yield f"a model with one table for both ends: {before:,} parameters, after loading {after:,}"
    yield f"its logits are right: {same}; but it is as large as with two tables, and a training step parts them"


EXHIBITS = {
    "standing_still": Exhibit(
        _standing_still,
        ("the position is not counted up with the cache", "the cache is too short", "the last norm is missing"),
        "a",
        "Every new token is turned as if it were the first one, and overwrites its slot.",
        step_without_counting,
    ),
    "first_loss": Exhibit(
        _first_loss,
        ("the learning rate is too high", "the first weights are too large", "the labels are shifted by two"),
        "b",
        "A fresh model should be unsure: its loss is about ln of the vocabulary. Large weights make it sure of "
        "nonsense. No step has been taken, so no learning rate can be at fault.",
        large_weights,
    ),
    "untied": Exhibit(
        _untied,
        ("the file holds the table twice", "the output has a bias", "assign=True made two parameters of one"),
        "c",
        "load_state_dict(assign=True) gives each name a tensor of its own. Tie them again afterwards.",
        load_with_assign,
    ),
}
