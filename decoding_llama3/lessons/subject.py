"""A model that a notebook looks at: tiny, or the real one beside it."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.lessons.fonts import drawable, readable
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def ids_of(text: str, model: Transformer, tokenizer: Tokenizer) -> Int[Tensor, "1 seq"]:
    """Begin-of-text and the tokens of `text`, on the model's device."""
    return torch.tensor([tokenizer.encode(text, bos=True)], device=model.norm.weight.device)


def token_strings(ids: Int[Tensor, "*any"], tokenizer: Tokenizer) -> list[str]:
    """What a figure calls each token: "BOS" for begin-of-text, else its text as `drawable`, its space included."""
    return [
        "BOS" if token == tokenizer.bos_id else drawable(readable(tokenizer.token_bytes(token)))
        for token in ids.flatten().tolist()
    ]


@dataclass(frozen=True)
class Subject:
    """A model with its tokenizer, and the name that figures give it."""

    name: str
    model: Transformer
    tokenizer: Tokenizer

    def ids(self, text: str) -> Int[Tensor, "1 seq"]:
        """Begin-of-text and the tokens of `text`, on the model's device."""
        return ids_of(text, self.model, self.tokenizer)

    def words(self, text: str) -> list[str]:
        """What a figure calls each of these tokens: "BOS" for begin-of-text, else its text with its space."""
        return token_strings(self.ids(text), self.tokenizer)

    def places(self) -> list[str]:
        """The norms from the bottom to the top, each by the part that reads it: "attention 0", ..., "output"."""
        parts = ("attention", "feed-forward")
        return [f"{part} {i}" for i in range(self.model.config.n_layers) for part in parts] + ["output"]


def present(*subjects: Subject | None) -> list[Subject]:
    """Those that are there: the real model may not be."""
    return [subject for subject in subjects if subject is not None]
