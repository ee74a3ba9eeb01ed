"""The decode step, compiled: one graph for every position of every text, with a faster one-row matrix product.

Decoding reads every weight for one token. A matrix library is built for many rows and reads its weights at a
third of the memory's speed when there is one row; a compiled multiply-and-sum is two to three times as fast.
"""

import copy
import shutil
import textwrap
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from decoding_llama3.inference.quantize import Int8Linear
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.transformer import Transformer

ROWS = 4  # of a matrix at once: their sums run side by side, and each number of x is fetched once for all four
PIECE = 2048  # columns of one sum, at most: torch sums more than 4,096 numbers with a slower, more careful loop


def compile_decode_step(model: Transformer) -> None:
    """Give `model` a compiled `decode_step`, which `generate` calls for each new token; prompts stay eager.

    The step shares every weight with the model. Compiling happens at the first token.
    """
    if hasattr(model, "decode_step"):
        return
    device = model.norm.weight.device
    if device.type == "cpu" and find_compiler() is None:
        print("no C++ compiler found, so the model stays uncompiled: install g++ or clang to use compile=True")
        return
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.Linear, Int8Linear)):
                setattr(module, name, OneRowLinear(child.weight, getattr(child, "scale", None)))
    options = {"triton.cudagraphs": True} if device.type == "cuda" else {}

    def read_token(tokens: Tensor, positions: Tensor, stores: list[tuple[Tensor, Tensor]]) -> Tensor:
        return twin(tokens, positions, [_Store(*store) for store in stores])

    # A code object for each model: torch counts graphs by it, and refuses the ninth.
    read_token.__code__ = read_token.__code__.replace()
    step = torch.compile(read_token, fullgraph=True, dynamic=False, options=options)

    def decode_step(tokens: Tensor, positions: Tensor, caches: list[KVCache]) -> Tensor:
        stores = [(cache.keys, cache.values) for cache in caches]
        for tensor in chain.from_iterable(stores):
            torch._dynamo.mark_dynamic(tensor, 2)  # the length, and it alone: one graph for all
            torch._dynamo.mark_static_address(tensor, guard=False)
        try:
            return step(tokens, positions, stores)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            reason = textwrap.shorten(str(error), 200)
            raise ValueError(f"torch.compile failed here ({reason}): load the model without compile") from error

    model.decode_step = decode_step


@dataclass
class _Store:
    """A KVCache of bare tensors: what belongs to a module would be compiled anew for each length."""

    keys: Tensor
    values: Tensor
    update = KVCache.update


class OneRowLinear(nn.Module):
    """What a bias-free linear layer gives for one token, as products and sums that compile into one loop.

    Weights of fewer bytes are widened inside that loop, so that memory is read in their own width.
    """

    def __init__(self, weight: Tensor, scale: Tensor | None) -> None:
        super().__init__()
        self.weight, self.scale = weight, scale

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        columns = x.shape[-1]
        if x.numel() == columns:
            piece = next(n for n in range(min(columns, PIECE), 0, -1) if columns % n == 0)
            pieces = x.float().view(-1, piece)
            blocks = self.weight.view(-1, columns // piece, piece).chunk(ROWS)
            sums = [(pieces * block.float()).sum(dim=-1).sum(dim=-1) for block in blocks]
            y = torch.cat(sums).view(*x.shape[:-1], -1)
        else:
            y = F.linear(x.float(), self.weight.float())
        return (y if self.scale is None else y * self.scale).type_as(x)


def find_compiler() -> str | None:
    """The C++ compiler that `torch.compile` needs on a CPU, or None."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)
