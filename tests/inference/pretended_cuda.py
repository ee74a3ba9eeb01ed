"""What torch's compiler generates for an H100, where there is none: tensors without data, no kernel runs.

`python pretended_cuda.py` prints the code of each case as JSON. It runs in a process of its own, because torch
keeps what it once believes of a device.
"""

import contextlib
import json
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from unittest import mock

import torch
import torch._inductor.fx_passes.misc_patterns
from torch import Tensor, nn
from torch._dynamo.device_interface import CudaInterface
from torch._inductor.graph import GraphLowering
from torch._subclasses import FakeTensorMode

import decoding_llama3 as dl
from decoding_llama3.inference import compile, quantize

LENGTH = 1024
H100 = types.SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
)
ANSWERS = {  # of the card, to torch's compiler
    "is_available": lambda: True,
    "current_device": lambda: 0,
    "device_count": lambda: 1,
    "get_device_properties": lambda device=None: H100,
    "get_compute_capability": lambda device=None: 90,
    "is_bf16_supported": lambda including_emulation=False: True,
    "is_triton_capable": lambda device=None: True,
    "raise_if_triton_unavailable": lambda device=None: None,
}


class Generated(Exception):
    """Carries the code; raised in place of running it."""


def stop(graph: GraphLowering) -> None:
    raise Generated(graph.codegen()[0].value)


def attend_as_a_card(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
    """Torch asks the card for its kernel of attention. With a mask this one, or cuDNN's: one launch either way."""
    bias = torch.where(attn_mask, 0.0, float("-inf")).to(q.dtype).expand(*q.shape[:3], k.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, False)[0]


@contextlib.contextmanager
def pretended_h100() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, answer in ANSWERS.items():
            stack.enter_context(mock.patch.object(CudaInterface, name, staticmethod(answer)))
        for place, value in {
            "torch.cuda.get_device_properties": ANSWERS["get_device_properties"],
            "torch.cuda.get_device_capability": lambda device=None: (9, 0),
            "torch._inductor.scheduler.has_triton": lambda: True,
            "torch.utils._triton.triton_hash_with_backend": lambda: "pretended",
            # They trace x[:n]. A torch without CUDA refuses that on a card, and copy_, which is replaced below.
            "torch._inductor.fx_passes.misc_patterns._misc_patterns_init": lambda device=None: None,
            "torch._inductor.graph.GraphLowering.compile_to_module": stop,
            "torch.nn.functional.scaled_dot_product_attention": attend_as_a_card,
        }.items():
            stack.enter_context(mock.patch(place, value))
        copy = lambda x, source, non_blocking=False: torch.ops.aten.copy_(x, source, non_blocking)  # noqa: E731
        stack.enter_context(mock.patch.object(torch.Tensor, "copy_", copy))
        # Folding constants makes real tensors on the card.
        stack.enter_context(torch._inductor.config.patch(joint_graph_constant_folding=False))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.inference_mode())
        yield


def tensor(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda")


def block_on_card(config: dl.LlamaConfig, dtype: torch.dtype, int8: bool) -> nn.Module:
    with torch.device("meta"):
        block = dl.TransformerBlock(config).eval().requires_grad_(False)
    for module in list(block.modules()):
        for name, child in list(module.named_children()):
            if int8 and quantize.is_quantizable(child):
                weight, scale = (
                    tensor(*child.weight.shape, dtype=torch.int8),
                    tensor(len(child.weight), dtype=torch.float32),
                )
                setattr(module, name, quantize.int8_layer(child, weight, scale, dtype))
            elif getattr(child, "weight", None) is not None:
                child.weight = nn.Parameter(tensor(*child.weight.shape, dtype=dtype), requires_grad=False)
    return block


def code_of_a_block(dtype: torch.dtype, int8: bool) -> str:
    """Of the step of one token of a block of the 8B, as `compile` makes it."""
    config = dl.LlamaConfig.from_preset("llama3-8b")
    block = block_on_card(config, dtype, int8)
    store = (1, config.n_kv_heads, LENGTH, config.head_dim)
    keys, values = tensor(*store, dtype=dtype), tensor(*store, dtype=dtype)
    x, positions = tensor(1, 1, config.dim, dtype=dtype), tensor(1, dtype=torch.int64)
    rotation, mask = tensor(1, config.head_dim // 2, 2, dtype=torch.float32), tensor(1, LENGTH, dtype=torch.bool)

    def step(block, x, positions, rotation, mask, keys, values):
        return block(x, positions, rotation, mask, compile._Store(keys, values))

    step = torch.compile(step, backend=compile._gpu_backend, fullgraph=True, dynamic=False)
    return generated(step, block, x, positions, rotation, mask, keys, values)


def code_of_an_int8_layer() -> str:
    """Of `Int8Linear` for one token, without `compile`."""
    layer = quantize.Int8Linear(tensor(14_336, 4096, dtype=torch.int8), tensor(14_336, dtype=torch.float32))
    return generated(layer, tensor(1, 1, 4096, dtype=torch.bfloat16))


def generated(function: Callable[..., Tensor], *args: object) -> str:
    try:
        function(*args)
    except torch._inductor.exc.InductorError as error:
        if isinstance(error.inner_exception, Generated):
            return error.inner_exception.args[0]
        raise
    raise AssertionError("nothing was compiled")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with pretended_h100():
        found = {
            "bfloat16": code_of_a_block(torch.bfloat16, int8=False),
            "int8": code_of_a_block(torch.bfloat16, int8=True),
            "int8 layer": code_of_an_int8_layer(),
        }
    json.dump(found, sys.stdout)
