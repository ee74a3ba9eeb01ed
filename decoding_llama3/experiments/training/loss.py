"""The loss on a batch, and on a whole text."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.experiments.corpus import UNSCORED
from decoding_llama3.inference.compile import can_compile
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


@torch.inference_mode()
def bits_per_byte(model: Transformer, tokenizer: Tokenizer, text: str, seq_len: int = 512) -> tuple[float, float]:
    """Loss over the whole text, in nats per token and in bits per byte; each token has seq_len / 2 before it.

    A text without a token raises ValueError.
    """
    ids = torch.tensor([tokenizer.bos_id, *tokenizer.encode(text)], device=model.norm.weight.device)
    if len(ids) < 2:
        raise ValueError("the text to measure is empty: give at least one character")
    stride, total = seq_len // 2, 0.0
    for start in range(0, len(ids) - 1, stride):
        window = ids[max(0, start - stride) : start + stride + 1]
        fresh = len(ids[start : start + stride + 1]) - 1
        logits = model.output(model.hidden(window[None, :-1])[0, -fresh:]).float()
        total += F.cross_entropy(logits, window[-fresh:], reduction="sum").item()
    return total / (len(ids) - 1), total / math.log(2) / len(text.encode())


def batch_loss(
    model: Transformer, inputs: Int[Tensor, "batch seq"], targets: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean loss of all targets that are scored, in nats per token."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=UNSCORED)


def make_batch_loss(compile: bool, device: str) -> Callable[..., Tensor]:
    """`batch_loss`, compiled if that is asked for; raises ValueError where there is no compiler."""
    if not compile:
        return batch_loss
    if not can_compile(device):
        raise ValueError("no C++ compiler found, which compiling needs: install g++ or clang, or leave it out")
    return torch.compile(batch_loss, dynamic=False)
