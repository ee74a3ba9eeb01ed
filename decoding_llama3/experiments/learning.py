"""One step of learning, the same in every training of this package."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


@torch.enable_grad()  # a notebook may have switched gradients off
def learn(
    model: nn.Module,
    optimizers: Iterable[torch.optim.Optimizer],
    loss_of_batch: Callable[[], Tensor],
    learning_rate: float | None = None,
    clip: float | None = 1.0,
) -> float:
    """Change the weights against the gradient of `loss_of_batch()`; return that loss, from before the change.

    `learning_rate` is set in every optimizer where it is given; gradients are clipped to a norm of `clip`.
    """
    loss = loss_of_batch()
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        if learning_rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()
