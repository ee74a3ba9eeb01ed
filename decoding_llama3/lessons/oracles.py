"""The same part from the houses of others, where they are installed, beside the package's."""

import importlib.util

import torch
from torch import Tensor

from decoding_llama3.feed_forward import FeedForward
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


def _report(differences: dict[str, Tensor], within: float = 1e-5) -> None:
    for name, difference in differences.items():
        torch.testing.assert_close(difference, torch.zeros(()), atol=within, rtol=0)
        print(f"{name} = the package's, within {within:g}")
    if not differences:
        print("compared with nobody: pip install transformers, and run this again")
