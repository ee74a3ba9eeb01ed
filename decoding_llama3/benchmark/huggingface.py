"""Hugging Face's model, driven as fast as it goes, for the benchmark to compare with.

A plain loop of forward calls that asks for the logits of the last token only: each token takes less work than in
its own `generate`. Eager with the cache that grows, or compiled with the cache of fixed length.
"""

import importlib.metadata
import inspect
from os import PathLike

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.benchmark.measure import Engine, tensor_bytes
from decoding_llama3.inference.checkpoint.find import read_config
from decoding_llama3.inference.memory import check_memory


def check_transformers() -> None:
    """Raise ValueError unless transformers 5 or newer is installed."""
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            "the comparison with Hugging Face needs transformers: pip install 'decoding-llama3[test]'"
        ) from None
    if int(version.split(".")[0]) < 5:
        raise ValueError(
            f"the comparison needs transformers 5 or newer, found {version}: pip install --upgrade transformers"
        )


def import_transformers() -> None:
    """Import what reading a Llama takes, which transformers else leaves for the first model, seconds long."""
    from transformers import AutoModelForCausalLM, StaticCache  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401


def huggingface_engine(
    path: str | PathLike, device: str | torch.device, dtype: torch.dtype, compile: bool
) -> Engine:
    """The model that transformers reads from a Hugging Face directory.

    With `compile`, a prompt stays eager and the step of one token is compiled as a whole, anew for each length
    of cache: exact lengths are its fastest.
    """
    from transformers import AutoModelForCausalLM, DynamicCache, StaticCache
    from transformers.utils import logging

    check_memory(read_config(path), device, dtype)
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa").to(device).eval()
    step, caches = model.forward, {}
    if compile:
        # Each cache is a graph of its own, and more graphs than this are an error.
        torch._dynamo.config.recompile_limit = 64
        mode = "reduce-overhead" if torch.device(device).type == "cuda" else None
        step = torch.compile(model.forward, fullgraph=True, dynamic=False, mode=mode)

    @torch.inference_mode()
    def start(context: int, more: int) -> _Text:
        if not compile:
            return _Text(model, step, DynamicCache(config=model.config), context)
        length = context + more
        if length in caches:
            caches[length].reset()  # and keeps its graph
        else:
            caches[length] = StaticCache(config=model.config, max_cache_len=length)
        return _Text(model, step, caches[length], context)

    return Engine(start, tensor_bytes(model.model.layers, model.model.norm, model.lm_head))


class _Text:
    def __init__(self, model, step, cache, context: int) -> None:
        self.model, self.step, self.cache, self.n_read = model, step, cache, context
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
        forward = self.step if self.n_read and tokens.shape[1] == 1 else self.model.forward
        self.n_read += tokens.shape[1]
        named = {self.cache_name: self.cache}
        return forward(tokens, use_cache=True, logits_to_keep=1, **named).logits[0, -1].float()
