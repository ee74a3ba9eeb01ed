"""Part 2 - the two files a configuration comes in: Meta's `params.json` and Hugging Face's `config.json`.

A setting that changes the computation and that this package does not implement is refused, never dropped.
"""

import json
from os import PathLike
from pathlib import Path

from decoding_llama3.config import LlamaConfig, RopeScaling, ffn_hidden_dim
from decoding_llama3.presets import PRESETS

_PARAMS_REQUIRED = ("dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "norm_eps")
_PARAMS_OPTIONAL = ("n_kv_heads", "ffn_dim_multiplier", "rope_theta", "use_scaled_rope")
_HUGGINGFACE_SHAPE = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_seq_len",
    "rms_norm_eps": "norm_eps",
}
_HUGGINGFACE_IMPLEMENTED = {  # key: values whose computation is ours; a missing key means the first
    "model_type": ("llama", "mistral"),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "quantization_config": (None,),
    "partial_rotary_factor": (1.0, None),
}


def read_params_json(text_or_path: str | PathLike, vocab_size: int | None = None) -> LlamaConfig:
    """The configuration in Meta's `params.json`.

    The file gives neither the context, nor whether embeddings are tied, nor the factor of scaled RoPE: they
    come from the preset of the same shape, else from the release that its keys show.
    """
    params, source = _read_json(text_or_path, "params.json")
    if unknown := sorted(params.keys() - {*_PARAMS_REQUIRED, *_PARAMS_OPTIONAL}):
        raise ValueError(
            f"{source} has keys this model has no use for ({', '.join(unknown)}); "
            f"known are {', '.join((*_PARAMS_REQUIRED, *_PARAMS_OPTIONAL))}: is it a Llama 2 or 3 text model?"
        )
    _require(params, _PARAMS_REQUIRED, source)
    if params["vocab_size"] == -1 and vocab_size is None:
        raise ValueError(f"{source} has vocab_size -1, which means 'not set': pass vocab_size=32000 for a Llama 2")
    scaled = bool(params.get("use_scaled_rope", False))
    numbers = {
        "dim": params["dim"],
        "n_layers": params["n_layers"],
        "n_heads": params["n_heads"],
        "n_kv_heads": params["n_heads"] if params.get("n_kv_heads") is None else params["n_kv_heads"],
        "hidden_dim": ffn_hidden_dim(params["dim"], params["multiple_of"], params.get("ffn_dim_multiplier")),
        "vocab_size": params["vocab_size"] if params["vocab_size"] != -1 else vocab_size,
        "norm_eps": params["norm_eps"],
        "rope_theta": params.get("rope_theta", 10_000.0),  # Llama 2's files do not state it
    }
    for name, preset in PRESETS.items():
        if numbers.items() <= preset.items() and scaled == (preset["rope_scaling"] is not None):
            return LlamaConfig.from_preset(name)
    context = 131_072 if scaled else 8192 if "rope_theta" in params else 4096
    return LlamaConfig(**numbers, rope_scaling=RopeScaling(factor=8.0) if scaled else None, max_seq_len=context)


def read_huggingface(text_or_path: str | PathLike) -> LlamaConfig:
    """The configuration in Hugging Face's `config.json`, of transformers 4 or 5."""
    config, source = _read_json(text_or_path, "config.json")
    _require(config, ("model_type", *_HUGGINGFACE_SHAPE), source)
    for key, values in _HUGGINGFACE_IMPLEMENTED.items():
        if config.get(key, values[0]) not in values:
            raise ValueError(
                f"{source} sets {key} to {json.dumps(config[key])}, which changes the computation and is not "
                f"implemented here; only {json.dumps(values[0])} is"
            )
    numbers = {ours: config[theirs] for theirs, ours in _HUGGINGFACE_SHAPE.items()}
    heads, head_dim = numbers["n_heads"], config.get("head_dim")
    if head_dim is not None and head_dim * heads != numbers["dim"]:
        raise ValueError(
            f"{source} sets head_dim to {head_dim}, but only hidden_size / num_attention_heads "
            f"= {numbers['dim']} / {heads} is implemented here"
        )
    numbers["n_kv_heads"] = heads if config.get("num_key_value_heads") is None else config["num_key_value_heads"]
    numbers["tie_embeddings"] = config.get("tie_word_embeddings", False)
    numbers["rope_theta"], numbers["rope_scaling"] = _read_huggingface_rope(config, source)
    if config["model_type"] == "mistral" and config.get("sliding_window") is not None:
        # Within its window a Mistral is a Llama; beyond it the oldest tokens would have to drop out of sight.
        numbers["max_seq_len"] = min(numbers["max_seq_len"], config["sliding_window"])
    return LlamaConfig(**numbers)


def _read_huggingface_rope(config: dict, source: str) -> tuple[float, RopeScaling | None]:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}  # v5, v4
    theta = rope.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{source} rotates only part of each head (partial_rotary_factor), not implemented here")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(
            f"{source} sets the rope type to {kind!r}, which changes the computation and is not implemented "
            "here; 'default' and 'llama3' are"
        )
    names = {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_context",
    }
    _require(rope, names, f"the rope settings of {source}")
    return theta, RopeScaling(**{ours: rope[theirs] for theirs, ours in names.items()})


def _read_json(text_or_path: str | PathLike, filename: str) -> tuple[dict, str]:
    if isinstance(text_or_path, str) and text_or_path.lstrip().startswith("{"):
        text, source = text_or_path, f"the {filename} given as text"
    elif isinstance(text_or_path, (str, PathLike)):
        path = Path(text_or_path)
        path = path / filename if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"no file {path}: pass the path of a {filename}, or its text")
        text, source = path.read_text(encoding="utf-8"), str(path)
    else:
        raise TypeError(f"a {filename} is given as text or path, found {type(text_or_path).__name__}")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not valid JSON ({error}): download it again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{source} holds a JSON {type(values).__name__}, expected an object")
    return values, source


def _require(values: dict, keys, source: str) -> None:
    if missing := [key for key in keys if values.get(key) is None]:
        raise ValueError(f"{source} lacks {', '.join(missing)}: is it the file of a Llama model, whole?")
