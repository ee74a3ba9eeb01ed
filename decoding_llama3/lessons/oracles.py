"""The same part from the houses of others, where they are installed, beside the package's."""

import importlib.util

import torch
from torch import Tensor

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


def _report(differences: dict[str, Tensor], within: float = 1e-5) -> None:
    for name, difference in differences.items():
        torch.testing.assert_close(difference, torch.zeros(()), atol=within, rtol=0)
        print(f"{name} = the package's, within {within:g}")
    if not differences:
        print("compared with nobody: pip install transformers, and run this again")
