"""Part 2 - every number of every model, with its source. Data for `LlamaConfig.from_preset`.

L2P: Llama 2 paper, arXiv:2307.09288. CARD3: model card in github.com/meta-llama/llama3. SKU:
the list of models in Meta's package llama-models 0.3.0. HF: the model's config.json on Hugging
Face. tiny: data/README.md. Meta's own list gives Llama 2 7B and 13B eight key/value heads and
theta 500,000; the Llama 2 card and the released params.json files say otherwise, rightly.
"""

_LLAMA2 = {  # L2P section 2, HF
    "vocab_size": 32_000,
    "norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "tie_embeddings": False,
    "max_seq_len": 4096,
}
_LLAMA3 = {  # CARD3, SKU
    "vocab_size": 128_256,
    "norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "rope_scaling": None,
    "tie_embeddings": False,
    "max_seq_len": 8192,
}
_SCALED_BY_8 = {  # HF
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_context": 8192,
}
_SCALED_BY_32 = _SCALED_BY_8 | {"factor": 32.0}  # HF; llama-models has 8 for all (its #241)
_LLAMA31 = _LLAMA3 | {"rope_scaling": _SCALED_BY_8, "max_seq_len": 131_072}
_LLAMA32 = _LLAMA31 | {"rope_scaling": _SCALED_BY_32, "tie_embeddings": True}
_MISTRAL3 = _LLAMA2 | {  # HF
    "vocab_size": 32_768,
    "rope_theta": 1_000_000.0,
    "max_seq_len": 32_768,
}

_7B = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "hidden_dim": 11_008}
_13B = {"dim": 5120, "n_layers": 40, "n_heads": 40, "n_kv_heads": 40, "hidden_dim": 13_824}
_8B = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "hidden_dim": 14_336}
_70B = {"dim": 8192, "n_layers": 80, "n_heads": 64, "n_kv_heads": 8, "hidden_dim": 28_672}
_405B = {"dim": 16_384, "n_layers": 126, "n_heads": 128, "n_kv_heads": 8, "hidden_dim": 53_248}
_1B = {"dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "hidden_dim": 8192}
_3B = {"dim": 3072, "n_layers": 28, "n_heads": 24, "n_kv_heads": 8, "hidden_dim": 8192}

PRESETS = {
    "llama2-7b": _7B | _LLAMA2,
    "llama2-13b": _13B | _LLAMA2,
    "llama2-70b": _70B | _LLAMA2,
    "llama3-8b": _8B | _LLAMA3,
    "llama3-70b": _70B | _LLAMA3,
    "llama3.1-8b": _8B | _LLAMA31,
    "llama3.1-70b": _70B | _LLAMA31,
    "llama3.1-405b": _405B | _LLAMA31,
    "llama3.2-1b": _1B | _LLAMA32,
    "llama3.2-3b": _3B | _LLAMA32,
    "llama3.3-70b": _70B | _LLAMA31,
    # HF. Trained for 8k with a sliding window of 4,096: within it, exactly this architecture.
    "mistral-7b-v0.1": _8B | _LLAMA2 | {"max_seq_len": 4096},
    "mistral-7b-v0.3": _8B | _MISTRAL3,
    "tiny": {
        "dim": 256,
        "n_layers": 6,
        "n_heads": 8,
        "n_kv_heads": 2,
        "hidden_dim": 768,
        "vocab_size": 4096,
        "norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "tie_embeddings": True,
        "max_seq_len": 512,
    },
}
