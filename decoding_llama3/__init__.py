"""Llama 3, one component a file, in the order of the parts:

tokenizer, config (presets), norm, rope, attention (kv_cache), feed_forward, transformer.
`inference/` makes them run; `lessons/` teaches with them and is not loaded until it is used.
"""

from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.presets import PRESETS
from decoding_llama3.config import LlamaConfig, RopeScaling, ffn_hidden_dim
from decoding_llama3.norm import RMSNorm
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation, scale_frequencies
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.attention import Attention, attend, attend_explicitly, causal_mask
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.transformer import Transformer, TransformerBlock
from decoding_llama3.inference.load import load_model
from decoding_llama3.inference.tokenizer_files import load_tokenizer
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
