"""A configuration of ours as transformers' own class takes it, written without the exporter under test."""

from transformers import LlamaConfig, PreTrainedConfig

import decoding_llama3 as dl


def rope_parameters(theta: float, scaling: dl.RopeScaling | None) -> dict:
    if scaling is None:
        return {"rope_type": "default", "rope_theta": theta}
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def huggingface_config(
    config: dl.LlamaConfig, kind: type[PreTrainedConfig] = LlamaConfig, **changes
) -> PreTrainedConfig:
    settings = {
        "hidden_size": config.dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.hidden_dim,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_seq_len,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_parameters": rope_parameters(config.rope_theta, config.rope_scaling),
    }
    return kind(**settings | changes)
