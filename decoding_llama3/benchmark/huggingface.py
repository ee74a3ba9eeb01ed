"""The baselines: Hugging Face's model, driven as fast as it goes.

A plain loop of forward calls that asks for the logits of the last token only: each token takes less work than in
its own `generate`. Eager with the cache that grows, or compiled with the cache of fixed length.
"""

import inspect
from os import PathLike
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.benchmark.engines import Engine, Session
from decoding_llama3.benchmark.machine import version
from decoding_llama3.benchmark.work import tensor_bytes
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.export import huggingface_settings
from decoding_llama3.inference.checkpoint.find import read_config
from decoding_llama3.inference.memory import check_memory

BASELINES = {"huggingface-eager": {"compile": False}, "huggingface-compiled": {"compile": True}}


def check_transformers() -> None:
    """Raise ValueError unless transformers 5.4 or newer is installed: older ones compute other cached logits."""
    found = version("transformers")
    if found is None:
        raise ValueError(
            "the comparison with Hugging Face needs transformers: pip install 'decoding-llama3[test]'"
        )
    if tuple(map(int, found.split(".")[:2])) < (5, 4):
        raise ValueError(
            f"the comparison needs transformers 5.4 or newer, found {found}: pip install --upgrade transformers"
        )


def import_transformers() -> None:
    """Import what reading a Llama takes, which transformers else leaves for the first model, seconds long."""
    from transformers import AutoModelForCausalLM, StaticCache  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401


def checkpoint_engine(
    path: str | PathLike, device: str | torch.device, dtype: torch.dtype, compile: bool
) -> Engine:
    """The model that transformers reads from a Hugging Face directory; ValueError where memory is too small."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    check_memory(read_config(path), device, dtype)
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
    return _engine(model.to(device).eval(), compile)


def random_engine(config: LlamaConfig, device: str | torch.device, dtype: torch.dtype, compile: bool) -> Engine:
    """transformers' model of that shape with random weights of its own, made where they are to be."""
    from transformers import AutoModelForCausalLM
    from transformers import LlamaConfig as TransformersConfig

    check_memory(config, device, dtype)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            TransformersConfig.from_dict(huggingface_settings(config)), dtype=dtype, attn_implementation="sdpa"
        )
    return _engine(model.eval(), compile)


def _engine(model: Any, compile: bool) -> Engine:
    """With `compile`, a prompt stays eager and the step of one token is compiled as a whole.

    It is compiled anew for each length of cache: exact lengths are its fastest.
    """
    from transformers import DynamicCache, StaticCache

    step, caches = model.forward, {}
    if compile:
        # Each cache is a graph of its own, and more graphs than this are an error.
        torch._dynamo.config.recompile_limit = 64
        mode = "reduce-overhead" if model.device.type == "cuda" else None
        step = torch.compile(model.forward, fullgraph=True, dynamic=False, mode=mode)

    @torch.inference_mode()
    def start(context: int, max_new: int) -> Session:
        if not compile:
            return _Session(model, step, DynamicCache(config=model.config), context)
        length = context + max_new
        if length in caches:
            caches[length].reset()  # and keeps its graph
        else:
            caches[length] = StaticCache(config=model.config, max_cache_len=length)
        return _Session(model, step, caches[length], context)

    return Engine(start, tensor_bytes(model.model.layers, model.model.norm, model.lm_head))


class _Session:
    def __init__(self, model: Any, step: Any, cache: Any, context: int) -> None:
        self.model, self.step, self.cache, self.n_past = model, step, cache, context
        # transformers 5.24 renamed the argument.
        named = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in named else "past_key_values"
        if context:
            heads, head_dim = model.config.num_key_value_heads, model.model.layers[0].self_attn.head_dim
            zeros = torch.zeros(1, heads, context, head_dim, dtype=model.dtype, device=model.device)
            for layer in range(model.config.num_hidden_layers):
                cache.update(zeros, zeros, layer)

    @torch.inference_mode()
    def read(self, tokens: Int[Tensor, "1 seq"]) -> Float[Tensor, " vocab"]:
        """Logits after the last of `tokens`, which continue what was read before."""
        forward = self.step if self.n_past and tokens.shape[1] == 1 else self.model.forward
        self.n_past += tokens.shape[1]
        named = {self.cache_name: self.cache}
        return forward(tokens, use_cache=True, logits_to_keep=1, **named).logits[0, -1].float()
