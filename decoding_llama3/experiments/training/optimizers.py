"""The first weights of a model and the optimizers that change them."""

import math

import torch

from decoding_llama3.experiments.training.settings import TrainingSettings
from decoding_llama3.transformer import Transformer


def initialize(model: Transformer, seed: int) -> None:
    """Normal weights of std 0.02, smaller by 1/sqrt(2 n_layers) where a layer writes to the residual stream."""
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same weights on every device
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            writes = name.endswith(("wo.weight", "w_down.weight"))
            std = 0.02 / math.sqrt(2 * model.config.n_layers) if writes else 0.02
            drawn = torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
            weight.data.copy_(drawn.normal_(std=std, generator=generator))


def make_optimizers(model: Transformer, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms; norms do not decay.

    A torch older than 2.9, without Muon, raises ValueError.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"training needs the optimizer Muon of torch 2.9 or newer, found torch {torch.__version__}"
        )
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    tables = list({id(p): p for p in (model.tok_embeddings.weight, model.output.weight)}.values())
    adamw = [
        {"params": tables, "weight_decay": settings.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(matrices, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adamw, betas=(0.9, 0.95)),
    ]
