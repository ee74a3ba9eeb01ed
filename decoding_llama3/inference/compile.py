"""The decode step, compiled: one graph for every position of every text, each kind of block compiled once.

Decoding reads every weight for one token. A matrix library is built for many rows: on a CPU it reads its weights
at a third of the memory's speed when there is one row, and a compiled multiply-and-sum is two to three times as
fast. Compiled code takes the weights as arguments and nothing is attached to the model, so the step is always that
of the model as it now is.
"""

import copy
import operator
import shutil
import textwrap
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from decoding_llama3.inference.quantize import int8_product, row_product
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.transformer import Transformer

HOOKS = ("_forward_hooks", "_forward_pre_hooks")
NO_COMPILER = "no C++ compiler found, so the model stays uncompiled: install g++ or clang to use compile=True"
_region_numbers = count()
PLAIN = frozenset(vars(nn.Module()))  # the attributes that every module has


class CompiledTransformer(Transformer):
    """A Transformer whose decode step `generate` compiles. It holds nothing that a Transformer does not hold."""


def compile_model(model: Transformer) -> Transformer:
    """The same model, marked as one whose decode step `generate` compiles; unmarked if there is no compiler."""
    if can_compile(model.norm.weight.device):
        model.__class__ = CompiledTransformer
    else:
        print(NO_COMPILER)
    return model


class DecodeStep:
    """`model(tokens, positions, caches)` for one token of one text, compiled.

    At each call the model is compared with what was compiled. Whatever was done to it meanwhile is followed: new
    weights at once, another structure after compiling anew, and with hooks the model runs eagerly.
    """

    def __init__(
        self, model: Transformer, caches: Sequence[KVCache], report: Callable[[str], None] = print
    ) -> None:
        self.model, self.caches, self.report = model, caches, report
        self._stores = [(cache.keys, cache.values) for cache in caches]
        for tensor in chain.from_iterable(self._stores):
            if tensor.device.type == "cuda":  # CUDA graphs want addresses and lengths that stay
                torch._dynamo.mark_static_address(tensor, guard=False)
            else:
                torch._dynamo.mark_dynamic(tensor, 2)  # the length, and it alone: one graph for all
        self._follow()

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits after `tokens`, (1, 1, vocab); a failure of the compiler raises ValueError."""
        if not self._is_unchanged():
            self._follow()
        if self._compiled is None:
            return self.model(tokens, positions, self.caches)
        if self._compiled.is_new:
            self.report("compiling the decode step: once per shape of model, up to half a minute for 32 blocks")
        try:
            logits = self._compiled.call(self._by_block, tokens, positions, self._stores)
        except _failures() as error:
            reason = textwrap.shorten(str(error), 200)
            raise ValueError(f"torch.compile failed here ({reason}): load the model without compile") from error
        self._compiled.is_new = False
        return logits

    def _follow(self) -> None:
        """Take the model as it now is."""
        modules = list(self.model.modules())
        inner = ("_modules", "_parameters", "_buffers", *HOOKS)
        self._watched = [vars(module)[name] for module in modules for name in inner]
        self._watched += [vars(module) for module in modules]
        self._tensors = [*self.model.parameters(), *self.model.buffers()]
        self._seen = self._look()
        signature = _signature(self.model)
        self._compiled = None if signature is None else _compiled(signature, self.model.norm.weight.device.type)
        if self._compiled is not None:
            self._by_block = _by_block(self.model)

    def _is_unchanged(self) -> bool:
        if nn_module._has_any_global_hook():
            return False
        (objects, storages), (now, storages_now) = self._seen, self._look()
        return storages == storages_now and len(objects) == len(now) and all(map(operator.is_, objects, now))

    def _look(self) -> tuple[list[Any], list[tuple[int, torch.dtype]]]:
        """Every object that an attribute of the model holds, and where the numbers of its tensors are."""
        objects = list(chain.from_iterable(map(dict.values, self._watched)))
        return objects, [(tensor.data_ptr(), tensor.dtype) for tensor in self._tensors]


def find_compiler() -> str | None:
    """The C++ compiler that `torch.compile` needs on a CPU, or None."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)


def can_compile(device: torch.device | str) -> bool:
    """Whether `torch.compile` finds what it needs for `device`."""
    return torch.device(device).type != "cpu" or find_compiler() is not None


def _failures() -> tuple[type[Exception], ...]:
    """What torch raises when it cannot compile."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    return TorchDynamoException, InductorError


@dataclass
class _Compiled:
    call: Callable[..., Tensor]
    is_new: bool = True  # nothing has run yet: the first call compiles


@dataclass
class _Store:
    """A KVCache of bare tensors: what belongs to a module would be compiled anew for each length."""

    keys: Tensor
    values: Tensor
    update = KVCache.update


class _Region(nn.Module):
    """A block whose code is compiled once for all blocks of its kind."""

    def __init__(self, block: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.block, self.run = block, run

    def forward(
        self, x: Tensor, positions: Tensor, rotation: Tensor, mask: Tensor | None, cache: _Store
    ) -> Tensor:
        return self.run(self.block, x, positions, rotation, mask, cache.keys, cache.values)


def _by_block(model: Transformer) -> Transformer:
    """The same model, of the same modules, with each of its blocks in a region."""
    shell = copy.copy(model)
    shell._modules = dict(model._modules)
    shell.layers = nn.ModuleList(_Region(block, _region(_signature(block))) for block in model.layers)
    return shell


@lru_cache(maxsize=64)
def _region(signature: Hashable) -> Callable[..., Tensor]:
    """A function for the blocks of one signature: torch takes what it compiled for the first for all of them."""

    def run(block, x, positions, rotation, mask, keys, values):
        return block(x, positions, rotation, mask, _Store(keys, values))

    # torch keeps what it compiled by code, and code of one name and content is equal.
    run.__code__ = run.__code__.replace(co_name=f"run_{next(_region_numbers)}")
    mark = getattr(torch.compiler, "nested_compile_region", lambda function: function)  # torch 2.8 and newer
    return mark(run)


@lru_cache(maxsize=32)
def _compiled(signature: Hashable, device_type: str) -> _Compiled:
    """The step for models of one signature, not compiled before its first call."""

    def read_token(model, tokens, positions, stores):
        return model(tokens, positions, [_Store(*store) for store in stores])

    read_token.__code__ = read_token.__code__.replace()  # of its own: torch refuses the ninth graph of one
    torch.compiler.allow_in_graph(int8_product)
    backend = _cpu_backend if device_type == "cpu" else _gpu_backend
    return _Compiled(torch.compile(read_token, backend=backend, fullgraph=True, dynamic=False))


def _cpu_backend(graph: torch.fx.GraphModule, inputs: list) -> Any:
    products = dict.fromkeys((F.linear, int8_product), row_product)
    return _inductor(graph, inputs, products, {})


def _gpu_backend(graph: torch.fx.GraphModule, inputs: list) -> Any:
    """The compiler makes its own kernel of each product of one row; launches are recorded as one CUDA graph."""
    return _inductor(graph, inputs, {}, {"triton.cudagraphs": True, "coordinate_descent_tuning": True})


def _inductor(graph: torch.fx.GraphModule, inputs: list, products: dict, options: dict) -> Any:
    """Compile `graph`, with the products of a single row exchanged for others of the same result."""
    from torch._inductor.compile_fx import compile_fx

    for part in graph.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                if node.target in products and _is_one_row(node):
                    node.target = products[node.target]
            part.recompile()
    return compile_fx(graph, inputs, config_patches=options)


def _is_one_row(product: torch.fx.Node) -> bool:
    """Whether a product is of one row, and has no bias (None, if it is named at all)."""
    first, is_int8 = product.args[0], product.target is int8_product
    if not isinstance(first, torch.fx.Node):
        return False
    x = first.meta["example_value"]
    bias = None if is_int8 else (*product.args[2:], product.kwargs.get("bias"))[0]
    return x.numel() == x.shape[-1] and bias is None


def _signature(module: nn.Module) -> Hashable | None:
    """All that compiled code takes for granted of a module: types, settings, shapes; None if it must run eagerly.

    Two blocks of one signature may run each other's code with their own weights.
    """
    found = []
    for name, part in module.named_modules(remove_duplicate=False):
        settings = {key: value for key, value in vars(part).items() if key not in PLAIN}
        tensors = chain(part._parameters.items(), part._buffers.items())
        shapes = tuple((key, t.shape, t.dtype, t.device) for key, t in tensors if t is not None)
        found.append((name, type(part), tuple(settings.items()), shapes))
        if any(vars(part)[hooks] for hooks in HOOKS):
            return None
    if nn_module._has_any_global_hook():
        return None
    try:
        hash(signature := tuple(found))
    except TypeError:  # a setting that is a list or the like, which may change without being seen
        return None
    return signature
