"""The two orders in which the rows of a query or key projection are stored."""

from torch import Tensor


def interleave_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of each head from Hugging Face's order (x0, x1, ..., y0, y1, ...) to Meta's (x0, y0, x1, y1, ...)."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def split_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of `interleave_pairs`."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)
