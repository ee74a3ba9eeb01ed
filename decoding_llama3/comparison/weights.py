"""Two checkpoints, tensor by tensor under our names: equal, rounded, rows in another order, close or others."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from decoding_llama3.inference.checkpoint.rows import interleave_pairs, split_pairs
from decoding_llama3.inference.checkpoint.stored import Checkpoint
from decoding_llama3.inference.empty import empty_model
from decoding_llama3.inference.memory import name_of

CLOSE = 0.3  # relative: 4 bits per weight make about 0.1; two tensors that have nothing in common differ by 1.4
EQUAL, ROUNDED, KIN, OTHER, MISSING = "equal", "rounded", "close", "other", "missing"
ORDERS = {"interleaved": interleave_pairs, "split": split_pairs}  # what makes B's rows of A's
_VOCABULARY = ("tok_embeddings.weight", "output.weight")


@dataclass(frozen=True)
class TensorMatch:
    """How a tensor of B is related to A's of that name; a shape is None where the checkpoint has no such tensor.

    `kind` is EQUAL, ROUNDED (to `dtype`, from the other), KIN (close), OTHER or MISSING, where one vocabulary has
    more rows of those that both have. `order` is the key in ORDERS of what had to be done to A's rows first.
    `largest` and `relative` are the differences without it, `left` is the relative one with it.
    """

    name: str
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    kind: str
    order: str | None = None
    dtype: str | None = None
    largest: float = 0.0
    relative: float = 0.0
    left: float = 0.0

    @property
    def is_same(self) -> bool:
        """Whether shape and values are equal."""
        return self.kind == EQUAL and self.order is None and self.shape_a == self.shape_b


def compare_tensors(a: Checkpoint, b: Checkpoint) -> Iterator[TensorMatch]:
    """Each tensor that one of the two has, in the order of the model, of each checkpoint one at a time in memory.

    An output that is tied to the embedding counts as a tensor like it, unless both are tied.
    """
    tied = a.config.tie_embeddings and b.config.tie_embeddings
    names = (name for each in (a, b) for name in empty_model(each.config).state_dict())
    for name in dict.fromkeys(names):
        if not (tied and name == "output.weight"):
            yield _compare(name, a, b)


def _compare(name: str, a: Checkpoint, b: Checkpoint) -> TensorMatch:
    stored_a, stored_b = (each.tensors.get(_source(name, each)) for each in (a, b))
    shapes = stored_a.shape if stored_a else None, stored_b.shape if stored_b else None
    if stored_a is None or stored_b is None:
        return TensorMatch(name, *shapes, MISSING)
    if stored_a.shape[1:] != stored_b.shape[1:] or (stored_a.shape != stored_b.shape and name not in _VOCABULARY):
        return TensorMatch(name, *shapes, OTHER)
    n_rows = min(stored_a.shape[0], stored_b.shape[0])
    match = TensorMatch(name, *shapes, OTHER)
    return _judged(match, stored_a.read()[:n_rows], stored_b.read()[:n_rows], a.config.head_dim)


def _source(name: str, checkpoint: Checkpoint) -> str:
    tied = name == "output.weight" and checkpoint.config.tie_embeddings
    return "tok_embeddings.weight" if tied else name


def _judged(match: TensorMatch, a: Tensor, b: Tensor, head_dim: int) -> TensorMatch:
    """`match` with what the values of the two tensors say."""
    largest, relative = _apart(a, b)
    kind, dtype = _kin(a, b, relative)
    match = replace(match, kind=kind, dtype=dtype, largest=largest, relative=relative, left=relative)
    if kind == OTHER and match.name.endswith((".wq.weight", ".wk.weight")):
        for order, reorder in ORDERS.items():
            moved = reorder(a, head_dim)
            left = _apart(moved, b)[1]
            kind, dtype = _kin(moved, b, left)
            if kind != OTHER:
                return replace(match, kind=kind, dtype=dtype, order=order, left=left)
    return match


def _kin(a: Tensor, b: Tensor, relative: float) -> tuple[str, str | None]:
    """The kind of relation, and the dtype that one of the two was rounded to."""
    if relative == 0:
        return EQUAL, None
    for narrow in (torch.bfloat16, torch.float16):
        rounded = any(torch.equal(x.to(narrow).float(), y.float()) for x, y in ((a, b), (b, a)))
        if rounded:
            return ROUNDED, name_of(narrow)
    return (KIN if relative < CLOSE else OTHER), None


def _apart(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The largest difference of two numbers, and the size of all differences relative to that of B."""
    b = b.float()
    apart = a.float() - b
    if not apart.any():
        return 0.0, 0.0
    size = max(b.norm().item(), torch.finfo(torch.float32).tiny)
    return apart.abs().max().item(), apart.norm().item() / size
