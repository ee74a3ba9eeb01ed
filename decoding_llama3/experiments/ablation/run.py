"""One training of the ablation lab, on one thread."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.experiments.ablation.model import build_variant
from decoding_llama3.experiments.ablation.text import Text
from decoding_llama3.experiments.ablation.variants import Settings, Variant
from decoding_llama3.experiments.learning import learn
from decoding_llama3.experiments.seeds import check_run_seed
from decoding_llama3.transformer import Transformer


class LossPoint(NamedTuple):
    """One point of a curve; losses in nats per character."""

    step: int
    train_loss: float  # mean over the steps since the point before
    held_out_loss: float
    seconds: float | None = None  # of the training steps so far; not kept in the files


Curves = Mapping[str, Mapping[int, Sequence[LossPoint]]]  # variant: seed: points


def train_variant(variant: Variant, seed: int, settings: Settings | None = None) -> Iterator[LossPoint]:
    """Train one model on one thread, yielding a point every `eval_every` steps and after the last.

    Weights and batches depend on the seed alone: the same run on the same machine gives the same points.
    """
    check_run_seed(seed)
    settings = settings or Settings()
    text = Text.of_python()
    return train_model(build_variant(variant, seed, len(text.vocabulary), settings), text, seed, settings)


def train_model(model: Transformer, text: Text, seed: int, settings: Settings) -> Iterator[LossPoint]:
    """Train `model` on `text` as the lab does, on its device; `seed` draws the batches. Yields as `train_variant`.

    A text shorter than the sequences raises ValueError.
    """
    check_run_seed(seed)
    text.check_length(settings.seq_len)
    return _train(model, text, seed, settings)


def _train(model: Transformer, text: Text, seed: int, settings: Settings) -> Iterator[LossPoint]:
    device = model.output.weight.device
    windows = text.held_out_windows(settings.seq_len).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = _make_optimizer(model, settings)
    seconds = 0.0
    for start in range(0, settings.steps, settings.eval_every):
        stop = min(start + settings.eval_every, settings.steps)
        with _one_thread():
            started = time.perf_counter()
            losses = []
            for step in range(start, stop):
                batch = partial(mean_loss, model, text.batch(settings, generator).to(device))
                losses.append(learn(model, [optimizer], batch, settings.learning_rate_at(step)))
            seconds += time.perf_counter() - started
            with torch.no_grad():
                held_out = mean_loss(model, windows).item()
        yield LossPoint(stop, statistics.fmean(losses), held_out, seconds)


def _make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    norms = [p for p in model.parameters() if p.dim() == 1]
    others = [p for p in model.parameters() if p.dim() > 1]
    groups = [{"params": others, "weight_decay": settings.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.95))


def mean_loss(model: nn.Module, windows: Int[Tensor, "batch length"]) -> Float[Tensor, ""]:
    """Mean loss, in nats per character, of each character but the first of every window."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
