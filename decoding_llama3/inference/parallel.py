"""One model in several processes, as torchrun starts them: each holds a slice of every matrix.

Each process runs a narrower Llama of the unchanged components, with a share of the heads, of the feed-forward
width and of the vocabulary, and a cache for its own heads alone. PLAN says what becomes of the outputs of its
modules, so that together they compute the whole (Shoeybi et al. 2019, arXiv:1909.08053).
"""

import dataclasses
import math
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from os import PathLike
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import Placement, Replicate, Shard

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.agreement import check_agreement
from decoding_llama3.inference.checkpoint.find import open_checkpoint
from decoding_llama3.inference.devices import check_device, choose_dtype
from decoding_llama3.inference.load import check_quantize, fill_model
from decoding_llama3.inference.memory import Fit, find_fit, free_bytes, gib, needed_bytes
from decoding_llama3.inference.ranks import Ranks, find_ranks
from decoding_llama3.transformer import Transformer

T = TypeVar("T")
WAIT = timedelta(days=7)  # a user may think for long before a message; a process that ends shows at once


def _sum(config: LlamaConfig, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Each process has multiplied its own columns: the product is the sum."""
    dist.all_reduce(output)
    return output


def _join(config: LlamaConfig, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Each process has the logits of its own tokens; all get the same bits of all."""
    world = dist.get_world_size()
    sizes = [len(Ranks(rank, world).own(config.vocab_size)) for rank in range(world)]
    padded = F.pad(output, (0, max(sizes) - output.shape[-1])).contiguous()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[..., :n] for part, n in zip(parts, sizes, strict=True)], dim=-1)


# Where each weight is, in the words of torch.distributed.tensor, and what becomes of its module's output. Queries,
# keys, values and gates stay in their process, so a block needs two sums and no more. Embedding and output are
# split by the vocabulary: whole, they would be an eighth of an 8B in every process; so split, a tied one stays one
# tensor, and each logit is computed in one place. DTensors would compute the same (a test compares), but dispatch
# each product anew in Python: a token of tiny on two CPUs took ten times as long.
PLAN: dict[str, tuple[Placement, Callable[..., Tensor] | None]] = {
    "tok_embeddings": (Shard(0), _sum),
    "attention_norm": (Replicate(), None),
    "wq": (Shard(0), None),
    "wk": (Shard(0), None),
    "wv": (Shard(0), None),
    "wo": (Shard(1), _sum),
    "ffn_norm": (Replicate(), None),
    "w_gate": (Shard(0), None),
    "w_up": (Shard(0), None),
    "w_down": (Shard(1), _sum),
    "norm": (Replicate(), None),
    "output": (Shard(0), _join),
}


class _OwnTokens(nn.Module):
    """The embedding of a part of the vocabulary: zeros for tokens of the other parts."""

    def __init__(self, embedding: nn.Module, own: range) -> None:
        super().__init__()
        self.embedding, self.own = embedding, own

    def forward(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        elsewhere = (tokens < self.own.start) | (tokens >= self.own.stop)
        x = self.embedding((tokens - self.own.start).masked_fill(elsewhere, 0))
        return x.masked_fill(elsewhere[..., None], 0)


def narrow_config(config: LlamaConfig, ranks: Ranks) -> LlamaConfig:
    """The narrower Llama that one process runs; ValueError where heads or width cannot be shared out evenly."""
    heads, kv_heads, width = config.n_heads, config.n_kv_heads, config.hidden_dim
    shared = {"key/value heads": kv_heads, "query heads": heads, "features of the feed-forward network": width}
    for what, n in shared.items():
        if n % ranks.world:
            fitting = [str(m) for m in range(1, kv_heads + 1) if math.gcd(kv_heads, width) % m == 0]
            raise ValueError(
                f"{ranks.world} processes cannot share the model's {n:,} {what} evenly: start as many as one of "
                f"{', '.join(fitting)} (torchrun --nproc-per-node)"
            )
    own = {"n_heads": heads // ranks.world, "n_kv_heads": kv_heads // ranks.world}
    own |= {"hidden_dim": width // ranks.world, "vocab_size": len(ranks.own(config.vocab_size))}
    return dataclasses.replace(config, **own)


def meet(device: str | None = None) -> str:
    """Meet the other processes; this one's device: a card of its own where there is CUDA, else the CPU.

    Raises ValueError for another device, or for a card that is not there.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"processes share a model on 'cpu', or on 'cuda', each with its card, found {kind!r}")
    own = "cpu" if kind == "cpu" else f"cuda:{find_ranks().local}"
    check_device(own)
    if kind == "cuda":
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        dist.init_process_group("gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl", timeout=WAIT)
    return own


def from_first(value: T) -> T:
    """The first process's `value`, in all of them."""
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def choose_share(config: LlamaConfig, device: str, dtype: torch.dtype | None, quantize: str | None) -> Fit:
    """The precision in which every process can hold its share, which `config` describes: as given, or the best.

    Raises ValueError where the memory of one of them does not suffice.
    """
    check_quantize(quantize)
    free = torch.tensor(free_bytes(device) // (find_ranks().local_world if device == "cpu" else 1))
    dist.all_reduce(free, dist.ReduceOp.MIN)
    native = from_first(choose_dtype(device))
    fit = find_fit(config, native, int(free)) if dtype is None and quantize is None else None
    if fit is None:
        dtype, quantize = dtype or native, quantize or ("int8" if dtype is None else None)
        fit = Fit(dtype, quantize, needed_bytes(config, dtype, quantize))
    if fit.needed > free:
        raise ValueError(
            f"each process needs {gib(fit.needed)} for its share in {fit}, but {gib(int(free))} are free for it: "
            "start more processes, on more cards, or take a smaller model"
        )
    return fit


def load_share(path: str | PathLike, device: str, dtype: torch.dtype, quantize: str | None = None) -> Transformer:
    """This process's share of a checkpoint, connected to the others: no process reads more than its slices.

    Of formats other than safetensors one tensor is read whole at a time, and let go. All processes have to call
    this, and the model, alike; given the same seed they draw the same tokens, because their logits are the same
    bits. Raises ValueError as `load_model` does, and where shares would not be even.
    """
    ranks, checkpoint = find_ranks(), open_checkpoint(path)
    narrow = narrow_config(checkpoint.config, ranks)
    check_agreement(checkpoint)
    tensors = dict(checkpoint.tensors)
    for name, stored in checkpoint.tensors.items():
        placement, _ = PLAN.get(name.split(".")[-2], (None, None))
        if isinstance(placement, Shard):
            tensors[name] = stored.part(placement.dim, ranks.own(stored.shape[placement.dim]))
    model = fill_model(dataclasses.replace(checkpoint, config=narrow, tensors=tensors), device, dtype, quantize)
    return connect(model, checkpoint.config.vocab_size)


def connect(model: Transformer, vocab_size: int) -> Transformer:
    """A narrower Llama, made one of several that together have `vocab_size` tokens; waits for the others."""
    model.config = dataclasses.replace(model.config, vocab_size=vocab_size)
    model.set_submodule("tok_embeddings", _OwnTokens(model.tok_embeddings, find_ranks().own(vocab_size)))
    for name, module in model.named_modules():
        _, complete = PLAN.get(name.rpartition(".")[2], (None, None))
        if complete is not None:
            module.register_forward_hook(partial(complete, model.config))
    dist.barrier()
    return model


def leave() -> None:
    """Leave the other processes, at the end of the work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def ends_first() -> bool:
    """Whether no other process has asked this before: the first that ends says why, and the others end for it."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        client: Any = dist.TCPStore  # pyright: ignore[reportPrivateImportUsage]
        store = client(address, port, is_master=False, timeout=timedelta(seconds=5))
        return store.add(f"decoding_llama3/ended/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except (dist.DistError, ValueError):  # the process that kept the store has gone
        return True
