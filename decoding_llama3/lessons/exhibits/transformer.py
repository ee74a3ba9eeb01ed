"""Part 7 - exhibits of the bug museum on the whole model."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, Seen, as_built, checked, opening, right_after, tale
from decoding_llama3.lessons.practice.mistake import Mistake
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def read_one_by_one(model, tokens, start, caches):
    logits = []
    for i in range(tokens.shape[1]):
        logits.append(model(tokens[:, i : i + 1], torch.tensor([start]), caches))
    return torch.cat(logits, dim=1)


def large_weights(model):
    model.tok_embeddings.weight.normal_(std=0.3)
    model.output.weight = model.tok_embeddings.weight


def load_with_assign(model, state):
    model.load_state_dict(state, assign=True)


def _read_on(model: Transformer, tokens: Tensor, start: int, caches: list) -> Tensor:
    return model(tokens, torch.arange(start, start + tokens.shape[1]), caches)


def _small_weights(model: Transformer) -> None:
    model.tok_embeddings.weight.normal_(std=0.02)
    model.output.weight = model.tok_embeddings.weight


def _load(model: Transformer, state: dict[str, Tensor]) -> None:
    model.load_state_dict(state)


def _after_a_prompt(model: Transformer, tokenizer: Tokenizer, read: Callable[..., Tensor]) -> Seen:
    tokens, start = opening(tokenizer), 9
    whole, seq = model(tokens), tokens.shape[1]
    caches = model.make_caches(batch=1, length=seq)
    prompt = model(tokens[:, :start], torch.arange(start), caches)
    found = checked(read, lambda *_: whole[:, start:])(model, tokens[:, start:].clone(), start, caches)
    rows = {
        f"right logits after the {start} tokens of the prompt": str(sum(right_after(prompt, whole[:, :start]))),
        f"right logits after the {seq - start} tokens that follow": str(sum(right_after(found, whole[:, start:]))),
    }
    return Seen(rows, found)


def _before_training(model: Transformer, tokenizer: Tokenizer, set_weights: Callable[..., object]) -> Seen:
    tokens, net = tale(tokenizer), as_built(model.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        set_weights(net)
    if net.tok_embeddings.weight.std() == 0:
        raise Mistake("all its embeddings are equal, so that training could not tell the tokens apart")
    loss, blind = loss_of(net, tokens), torch.tensor(float(model.config.vocab_size)).log().item()
    rows = {
        "loss on a tale, in nats per token": f"{loss:.1f}",
        f"ln {model.config.vocab_size:,}, the loss of knowing nothing": f"{blind:.1f}",
    }
    return Seen(rows, torch.tensor(loss))


def _read_state(model: Transformer, tokenizer: Tokenizer, load: Callable[..., object]) -> Seen:
    net, tokens = as_built(dataclasses.replace(model.config, tie_embeddings=True)), opening(tokenizer)
    right, before = as_built(net.config), sum(p.numel() for p in net.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        right.tok_embeddings.weight.normal_(std=0.02)
    load(net, {name: weight.clone() for name, weight in right.state_dict().items()})
    after, found, wanted = sum(p.numel() for p in net.parameters()), net(tokens), right(tokens)
    rows = {
        "parameters before": f"{before:,}",
        "parameters after": f"{after:,}",
        f"right logits, of {tokens.shape[1]}": str(sum(right_after(found, wanted))),
    }
    return Seen(rows, [rows["parameters after"], found])


EXHIBITS = {
    "7.1": Exhibit(
        "A prompt is read at once, and the tokens that follow are read one after another.",
        _after_a_prompt,
        {
            "the position is not counted up": (
                "Every new token is turned as if it were the first one, and overwrites its slot in the cache."
            ),
            "the cache is too short": (
                "A position beyond the end of the cache raises an IndexError. Nothing was raised."
            ),
            "the last norm is missing": "Then the logits after the prompt would be wrong, too. They are right.",
            "new tokens are not written to the cache": (
                "Then even the first new token would not find itself among the keys, and no logits after the "
                "prompt would be right."
            ),
        },
        "a",
        read_one_by_one,
        _read_on,
        "`tokens` is (1, seq), `start` how many tokens the caches hold already. Return the logits after each of "
        "`tokens`, (1, seq, vocab); `model(tokens, positions, caches)` takes their absolute positions.",
    ),
    "7.2": Exhibit(
        "A model is built, and its loss is measured before any training.",
        _before_training,
        {
            "the learning rate is too high": (
                "The learning rate acts in a step of training, and no step was taken."
            ),
            "the weights are too large": (
                "A model as it is built should be unsure: its loss is about ln of the vocabulary. Large weights "
                "make it sure of nonsense."
            ),
            "the labels are shifted by two": (
                "A model that knows nothing loses ln of the vocabulary with any labels, shifted or not. This one "
                "loses far more."
            ),
            "the causal mask is missing": (
                "What a token sees does not matter to a model that knows nothing: the loss would still be close "
                "to ln of the vocabulary."
            ),
        },
        "b",
        large_weights,
        _small_weights,
        "It changes the weights of `model` in place and returns nothing; embedding and output share one table.",
        result="the loss",
        tolerance=0.05,
    ),
    "7.3": Exhibit(
        "A model whose embedding and output are one table reads a checkpoint. Its parameters are counted.",
        _read_state,
        {
            "the checkpoint holds the table twice": (
                "It does in the healthy case as well. Reading numbers into a table that is there adds no "
                "parameter."
            ),
            "the output has a bias": (
                "A bias adds one parameter per word of the vocabulary, a few thousand. Here there are a million "
                "more."
            ),
            "the checkpoint has one block more": (
                "A block more would change the logits, and load_state_dict refuses names that the model lacks. "
                "The logits are right."
            ),
            "assign=True separates what was tied": (
                "load_state_dict(assign=True) gives each name a tensor of its own, and a training step moves "
                "them apart. Tie them again afterwards."
            ),
        },
        "d",
        load_with_assign,
        _load,
        "`state` maps names to tensors. It loads them into `model` in place and returns nothing.",
        result="the number of parameters and the logits",
    ),
}
