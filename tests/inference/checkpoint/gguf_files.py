"""GGUF files for the tests, written by the library gguf, from the weights of a model of ours."""

from pathlib import Path

import gguf
import numpy as np
import torch

import decoding_llama3 as dl

NAMES = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward.w_gate": "ffn_gate",
    "feed_forward.w_up": "ffn_up",
    "feed_forward.w_down": "ffn_down",
}


def name_in_gguf(ours: str) -> str:
    *layer, what = ours.removesuffix(".weight").split(".", 2 if ours.startswith("layers.") else 0)
    return f"blk.{layer[1]}.{NAMES[what]}.weight" if layer else f"{NAMES[what]}.weight"


def write_gguf(model: dl.Transformer, path: Path, kind: str = "F32", change=None) -> dict[str, torch.Tensor]:
    """Write a model with its matrices in a type; returns what the library makes of each tensor that it wrote.

    `change(writer)` adds settings or tensors of its own. Types that the library cannot write get random blocks.
    """
    config, quantization = model.config, gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    if change is not None:
        change(writer)
    written = {}
    for name, weight in model.state_dict().items():
        if name == "output.weight" and config.tie_embeddings:
            continue
        kind_here = quantization if weight.dim() == 2 else gguf.GGMLQuantizationType.F32
        data = _blocks(weight.numpy(), kind_here)
        written[name] = torch.from_numpy(np.array(gguf.quants.dequantize(data, kind_here), dtype=np.float32))
        writer.add_tensor(name_in_gguf(name), data, raw_dtype=kind_here)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def _blocks(weight: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    try:
        return gguf.quants.quantize(weight, kind)
    except NotImplementedError:
        n_weights, n_bytes = gguf.GGML_QUANT_SIZES[kind]
        draw = np.random.default_rng(weight.size)
        blocks = draw.integers(0, 256, (weight.size // n_weights, n_bytes), dtype=np.uint8)
        scale = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
        for start in {"Q6_K": (208,), "Q2_K": (80, 82), "Q3_K": (108,)}.get(kind.name, (0, 2)):  # where scales lie
            blocks[:, start : start + 2] = scale
        return blocks.reshape(weight.shape[0], -1)
