"""The same part from the houses of others, where they are installed, beside the package's."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from decoding_llama3.attention import attend, causal_mask, repeat_for_queries
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.norm import RMSNorm
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation


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


def compare_rope(q: Tensor, k: Tensor, theta: float) -> None:
    """Hugging Face's rotation and Meta's of queries and keys (batch, heads, seq, head_dim); prints the result.

    Hugging Face's gets and gives features in its own order: first the even ones of a head, then the odd ones.
    """
    others, (seq, head_dim) = {}, q.shape[-2:]
    rotation = rope_rotation(rope_frequencies(head_dim, theta), torch.arange(seq))
    ours = [apply_rope(x, rotation) for x in (q, k)]
    if importlib.util.find_spec("transformers"):
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        order = torch.cat((torch.arange(0, head_dim, 2), torch.arange(1, head_dim, 2)))
        cos, sin = (side.repeat(1, 2)[None] for side in rotation.unbind(-1))
        turned = apply_rotary_pos_emb(q[..., order], k[..., order], cos, sin)
        others["Hugging Face's, in its order,"] = [x[..., order.argsort()] for x in turned]
    if importlib.util.find_spec("fairscale"):  # which Meta's file needs
        from llama_models.llama3 import model as meta

        turns = meta.precompute_freqs_cis(head_dim, seq, theta)
        turned = meta.apply_rotary_emb(q.transpose(1, 2), k.transpose(1, 2), turns)
        others["Meta's"] = [x.transpose(1, 2) for x in turned]
    pairs = {name: zip(theirs, ours, strict=True) for name, theirs in others.items()}
    _report({name: torch.stack([(a - b).abs().max() for a, b in both]).max() for name, both in pairs.items()})


def compare_feed_forward(x: Tensor, part: FeedForward) -> None:
    """Hugging Face's feed-forward network with the weights of `part`, on the same input; prints the result.

    Meta's is made of pieces that run in a group of processes only.
    """
    differences = {}
    if importlib.util.find_spec("transformers"):
        from transformers import LlamaConfig as TheirConfig
        from transformers.models.llama.modeling_llama import LlamaMLP

        hidden, dim = part.w_up.weight.shape
        theirs = LlamaMLP(TheirConfig(hidden_size=dim, intermediate_size=hidden))
        for their_name, our_name in (("gate_proj", "w_gate"), ("up_proj", "w_up"), ("down_proj", "w_down")):
            theirs.get_parameter(f"{their_name}.weight").data.copy_(part.get_parameter(f"{our_name}.weight"))
        differences["Hugging Face's"] = (theirs(x) - part(x)).abs().max()
    _report(differences)


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
