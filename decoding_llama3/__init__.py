"""Llama 3, one component per file, in the order of the parts:

tokenizer, config (presets), norm, rope, attention (kv_cache), feed_forward, transformer.
`inference/` makes them run; `lessons/` teaches with them. A name is imported when it is first used, so that what
needs no tensors, such as the help of the command, does not wait for torch.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decoding_llama3.tokenizer import Tokenizer
    from decoding_llama3.presets import PRESETS
    from decoding_llama3.config import LlamaConfig, RopeScaling, ffn_hidden_dim
    from decoding_llama3.norm import RMSNorm
    from decoding_llama3.rope import (
        apply_rope,
        rope_frequencies,
        rope_rotation,
        scale_frequencies,
    )
    from decoding_llama3.kv_cache import KVCache
    from decoding_llama3.attention import Attention, attend, attend_explicitly, causal_mask
    from decoding_llama3.feed_forward import FeedForward
    from decoding_llama3.transformer import Transformer, TransformerBlock
    from decoding_llama3.inference.load import load_model
    from decoding_llama3.inference.tokenizers.find import load_tokenizer
    from decoding_llama3.inference.generator import generate

__all__ = [
    "Tokenizer",
    "PRESETS",
    "LlamaConfig",
    "RopeScaling",
    "ffn_hidden_dim",
    "RMSNorm",
    "apply_rope",
    "rope_frequencies",
    "rope_rotation",
    "scale_frequencies",
    "KVCache",
    "Attention",
    "attend",
    "attend_explicitly",
    "causal_mask",
    "FeedForward",
    "Transformer",
    "TransformerBlock",
    "load_model",
    "load_tokenizer",
    "generate",
]
_MODULES = {  # where each public name is
    "tokenizer": ("Tokenizer",),
    "presets": ("PRESETS",),
    "config": ("LlamaConfig", "RopeScaling", "ffn_hidden_dim"),
    "norm": ("RMSNorm",),
    "rope": ("apply_rope", "rope_frequencies", "rope_rotation", "scale_frequencies"),
    "kv_cache": ("KVCache",),
    "attention": ("Attention", "attend", "attend_explicitly", "causal_mask"),
    "feed_forward": ("FeedForward",),
    "transformer": ("Transformer", "TransformerBlock"),
    "inference.load": ("load_model",),
    "inference.tokenizers.find": ("load_tokenizer",),
    "inference.generator": ("generate",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, or a file or folder of the package; it is there for good afterwards."""
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _files():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_files(), *(name for name in globals() if name.startswith("__"))})


def _files() -> set[str]:
    return {
        module.name
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    }
