"""The batches of a training: windows of the text, and among them sequences of repeated random tokens."""

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.experiments.corpus import Windows, repeated_span
from decoding_llama3.experiments.training.settings import TrainingSettings
from decoding_llama3.tokenizer import Tokenizer


def make_batch(
    windows: dict[int, Windows], tokenizer: Tokenizer, settings: TrainingSettings, step: int
) -> tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """Inputs and targets of one step: they depend on seed and step alone."""
    n, seq_len = settings.shape_at(step)
    inputs, targets = (rows.clone() for rows in windows[seq_len].batch(step, n))
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    repeats = settings.repeats_at(step)
    for row in (torch.rand(n, generator=generator) < repeats.share).nonzero().flatten():
        inputs[row], targets[row] = repeated_span(tokenizer, seq_len, repeats.longest, generator)
    return inputs, targets
