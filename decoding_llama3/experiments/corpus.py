"""The text that a tiny model learns from: any folder of .txt, one paragraph per line."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.experiments.files import read_text
from decoding_llama3.inspect.heads import repeated_random_tokens
from decoding_llama3.tokenizer import N_SPECIAL, Tokenizer

UNSCORED = -100  # a target that cross_entropy leaves out


@dataclass(frozen=True)
class Corpus:
    """A folder of .txt, one paragraph per line. The held-out file is seen by neither tokenizer nor model."""

    files: dict[str, str]  # name: text
    held_out: str
    sha256: str  # of the training files, one after another in the order of their names

    @classmethod
    def read(cls, folder: Path, held_out: str) -> "Corpus":
        """All .txt files of a folder; raises ValueError where they are not UTF-8, empty, or too few."""
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: give one with .txt files")
        files = {path.name: read_text(path) for path in sorted(folder.glob("*.txt"))}
        if held_out not in files or len(files) < 2:
            raise ValueError(
                f"{folder} has {len(files)} .txt files and {'a' if held_out in files else 'no'} {held_out}: "
                "name one file as held out and leave at least one to train on"
            )
        text = files.pop(held_out)
        if not any(map(str.strip, files.values())):
            raise ValueError(
                f"the {len(files)} files of {folder} beside {held_out} are empty: give text to train on"
            )
        digest = hashlib.sha256("".join(files.values()).encode()).hexdigest()
        return cls(files, text, digest)


class Windows:
    """Sequences of `seq_len` tokens that start at a paragraph, each after a begin-of-text token, in random order.

    Batch `step` depends on seed and step alone, so that a resumed run sees what an unbroken one would. A text that
    is too short for one sequence raises ValueError.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: Int[Tensor, " tokens"], seq_len: int, seed: int) -> None:
        ends = torch.tensor([tokenizer.token_bytes(token).endswith(b"\n") for token in range(tokenizer.n_vocab)])
        self.tokens = tokens
        self.paragraphs = ends[tokens].nonzero().flatten()[:-1] + 1  # many a token is '."' with its line end
        self.bos, self.seq_len, self.seed = tokenizer.bos_id, seq_len, seed
        self.per_epoch = (len(tokens) - 2 * seq_len) // seq_len
        if self.per_epoch < 1 or len(self.paragraphs) == 0:
            raise ValueError(
                f"the text has {len(tokens)} tokens in {len(self.paragraphs) + 1} lines: too little for sequences "
                f"of {seq_len}; give more text or a smaller seq_len"
            )
        self._epoch = lru_cache(maxsize=2)(self._order)

    def batch(self, step: int, batch: int) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
        """Inputs and targets."""
        tokens = torch.stack([self._window(index) for index in range(step * batch, (step + 1) * batch)])
        return tokens[:, :-1], tokens[:, 1:]

    def _window(self, index: int) -> Tensor:
        epoch, i = divmod(index, self.per_epoch)
        start = self._epoch(epoch)[i]
        return torch.cat((torch.tensor([self.bos]), self.tokens[start : start + self.seq_len]))

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        offset = torch.randint(self.seq_len, (1,), generator=generator)
        starts = offset + self.seq_len * torch.arange(self.per_epoch)
        nearest = torch.searchsorted(self.paragraphs, starts).clamp(max=len(self.paragraphs) - 1)
        starts = self.paragraphs[nearest].clamp(max=len(self.tokens) - self.seq_len)
        return starts[torch.randperm(self.per_epoch, generator=generator)]


def encode_all(tokenizer: Tokenizer, texts: list[str]) -> Int[Tensor, " tokens"]:
    """The token ids of all texts, one after another."""
    return torch.tensor([token for text in texts for token in tokenizer.encode(text.rstrip("\n") + "\n")])


def repeated_span(
    tokenizer: Tokenizer, seq_len: int, longest: int, generator: torch.Generator
) -> tuple[Int[Tensor, " seq"], Int[Tensor, " seq"]]:
    """Inputs and targets of one sequence of random tokens that are repeated.

    A span of 4 to `longest` random tokens of two bytes and more (of at most half the sequence), no token twice,
    repeated to the end. Targets that nothing predicts, those of the first span and the first token after it, are
    UNSCORED.
    """
    ids = range(256, tokenizer.n_vocab - N_SPECIAL)
    periods = range(4, min(longest, seq_len // 2, len(ids)) + 1)
    (tokens,), (period,) = repeated_random_tokens(
        ids, tokenizer.bos_id, batch=1, seq=seq_len + 1, generator=generator, periods=periods
    )
    targets = tokens[1:].clone()
    targets[: period + 1] = UNSCORED
    return tokens[:-1], targets
