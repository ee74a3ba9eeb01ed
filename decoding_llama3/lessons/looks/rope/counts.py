"""Part 4 - a yardstick for the race of positions: tables of counts that know the last characters only."""

import math
from statistics import mean

import torch

from decoding_llama3.experiments import ablation
from decoding_llama3.lessons.show import show_table


def yardstick() -> dict[str, float]:
    """The held-out loss of each kind of positions among that of tables of counts, in nats per character."""
    text = ablation.Text.of_python()
    n = len(text.vocabulary)
    losses = {"all characters equally probable": math.log(n)}
    for known, name in enumerate(("how often each character comes", "the character before", "the two before")):
        losses[f"counts: {name}"] = _loss_of_counts(text.training, text.held_out, known, n)
    ends = {
        f"model: {name}": [points[-1].held_out_loss for points in seeds.values()]
        for name, seeds in ablation.read_curves("position").items()
    }
    losses |= {name: mean(values) for name, values in ends.items()}
    ordered = dict(sorted(losses.items(), key=lambda item: -item[1]))
    spans = {name: f"{min(values):.2f} to {max(values):.2f}" for name, values in ends.items()}
    rows = [[name, f"{loss:.2f}", spans.get(name, "")] for name, loss in ordered.items()]
    show_table(rows, ["what predicts the next character", "loss (nats per character)", "best to worst seed"])
    return losses


def _loss_of_counts(training: torch.Tensor, held_out: torch.Tensor, known: int, n: int) -> float:
    """The loss of the counts of training, one added to each, given the `known` characters before."""
    counts = torch.bincount(_numbers(training, known, n), minlength=n ** (known + 1)).double().view(-1, n) + 1
    log_probabilities = (counts / counts.sum(dim=1, keepdim=True)).log().flatten()
    return -log_probabilities[_numbers(held_out, known, n)].mean().item()


def _numbers(ids: torch.Tensor, known: int, n: int) -> torch.Tensor:
    """Each run of `known` + 1 characters as one number."""
    length = len(ids) - known
    number = torch.zeros(length, dtype=torch.int64)
    for i in range(known + 1):
        number = number * n + ids[i : i + length]
    return number
