"""The same part from the houses of others, where they are installed, beside the package's."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from decoding_llama3.attention import attend, causal_mask, repeat_for_queries
from decoding_llama3.norm import RMSNorm


def compare_norm(x: Tensor, part: RMSNorm) -> None:
    """A norm of Hugging Face's and of Meta's, with the weight of `part`, on the same input; prints the result."""
    others, dim = {}, x.shape[-1]
    if importlib.util.find_spec("transformers"):
        from transformers.models.llama.modeling_llama import LlamaRMSNorm

        others["Hugging Face's"] = LlamaRMSNorm(dim, eps=part.eps)
    if importlib.util.find_spec("fairscale"):  # which Meta's file needs
        from llama_models.llama3.model import RMSNorm as MetaRMSNorm

        others["Meta's"] = MetaRMSNorm(dim, eps=part.eps)
    for other in others.values():
        other.weight.data.copy_(part.weight)
    _report({name: (other(x) - part(x)).abs().max() for name, other in others.items()})


def compare_attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Attention of Hugging Face's, and Meta's way to repeat shared keys, on the same inputs; prints the result.

    q is (batch, heads, seq, head_dim), k and v have fewer heads.
    """
    ours, differences, share = attend(q, k, v, None), {}, q.shape[1] // k.shape[1]
    if importlib.util.find_spec("transformers"):
        from transformers.models.llama.modeling_llama import eager_attention_forward

        seen = causal_mask(torch.arange(q.shape[2]), q.shape[2])
        added = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
        module: Any = SimpleNamespace(num_key_value_groups=share, training=False)
        theirs, _ = eager_attention_forward(module, q, k, v, added, scaling=q.shape[-1] ** -0.5)
        differences["Hugging Face's"] = (theirs.transpose(1, 2) - ours).abs().max()
    if importlib.util.find_spec("fairscale"):  # which Meta's file needs
        from llama_models.llama3.model import repeat_kv

        repeated = repeat_kv(k.transpose(1, 2), share).transpose(1, 2)
        differences["Meta's order of repeated keys"] = (repeated - repeat_for_queries(q, k)).abs().max()
    _report(differences)


def _report(differences: dict[str, Tensor], within: float = 1e-5) -> None:
    for name, difference in differences.items():
        torch.testing.assert_close(difference, torch.zeros(()), atol=within, rtol=0)
        print(f"{name} = the package's, within {within:g}")
    if not differences:
        print("compared with nobody: pip install transformers, and run this again")
