"""The text of the ablation lab: the source of Python's own library, as characters."""

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.experiments.ablation.variants import Settings


@dataclass(frozen=True)
class Text:
    """Characters as numbers. The held-out files are none of those trained on."""

    training: Int[Tensor, " characters"]
    held_out: Int[Tensor, " unseen"]
    vocabulary: str
    sha256: str

    @classmethod
    def of_python(cls, training: int = 1_000_000, held_out: int = 100_000) -> "Text":
        """The source of Python's own library, its ASCII files by name, until there are that many characters.

        Raises ValueError where the library has fewer.
        """
        folder = Path(sysconfig.get_path("stdlib"))
        files = (path.read_text(encoding="latin-1") for path in sorted(folder.glob("*.py")))
        files = (text for text in files if text.isascii())
        parts = [_take(files, training), _take(files, held_out)]
        if len(parts[1]) < held_out:
            raise ValueError(
                f"{folder} holds {sum(map(len, parts)):,} characters of Python source, but the lab reads "
                f"{training + held_out:,}: run it with a Python that has its library as .py files"
            )
        vocabulary = "".join(sorted(set("".join(parts))))
        number = torch.zeros(128, dtype=torch.int64)
        number[list(vocabulary.encode())] = torch.arange(len(vocabulary))
        ids = (number[torch.frombuffer(bytearray(part, "ascii"), dtype=torch.uint8).long()] for part in parts)
        learned, unseen = ids
        return cls(learned, unseen, vocabulary, hashlib.sha256("".join(parts).encode()).hexdigest())

    def check_length(self, seq_len: int) -> None:
        """Raise ValueError unless both parts hold a window of `seq_len` + 1 characters."""
        shorter = min(len(self.training), len(self.held_out))
        if shorter < seq_len + 1:
            raise ValueError(
                f"the text has a part of {shorter} characters, too few for windows of {seq_len} + 1: give "
                "more text or a smaller seq_len"
            )

    def batch(self, settings: Settings, generator: torch.Generator) -> Int[Tensor, "batch length"]:
        """Windows of seq_len + 1 characters from anywhere in the training text."""
        starts = torch.randint(len(self.training) - settings.seq_len, (settings.batch,), generator=generator)
        return self.training[starts[:, None] + torch.arange(settings.seq_len + 1)]

    def held_out_windows(self, seq_len: int, windows: int = 128) -> Int[Tensor, "windows length"]:
        """Windows of seq_len + 1 characters, evenly spread over the held-out text: the same for every run."""
        starts = torch.linspace(0, len(self.held_out) - seq_len - 1, windows).long()
        return self.held_out[starts[:, None] + torch.arange(seq_len + 1)]


def _take(files: Iterator[str], characters: int) -> str:
    text = ""
    while len(text) < characters and (file := next(files, None)) is not None:
        text += file
    return text
