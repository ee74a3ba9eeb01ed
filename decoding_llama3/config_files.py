"""Part 2 - the files of a configuration: Meta's `params.json`, Hugging Face's `config.json`.

Both are read into plain dictionaries in the words of `LlamaConfig`. A setting that changes the
computation and is not implemented here is refused, never dropped; what a file says twice must
agree.
"""

from os import PathLike
from typing import Any

from decoding_llama3.config_rope import read_rope
from decoding_llama3.config_schema import HUGGINGFACE, PARAMS, check, check_computation
from decoding_llama3.json_files import read_json, shown

_HUGGINGFACE_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "hidden_dim",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_seq_len",
    "rms_norm_eps": "norm_eps",
}
# What a file without these keys means: the values of Llama 2, and those of transformers.
_LLAMA2 = {"rope_theta": 10_000.0, "ffn_dim_multiplier": None, "use_scaled_rope": False}
_MISTRAL = {"num_key_value_heads": 8, "sliding_window": 4096}
_WIDTHS = ("dim", "n_heads", "n_kv_heads", "hidden_dim", "rope_theta")  # a fine-tune keeps them
_UNSTATED = ("rope_scaling", "tie_embeddings", "max_seq_len")  # params.json has no such keys


def read_params_json(text_or_path: str | PathLike, vocab_size: int | None) -> tuple[dict, str]:
    """What Meta's `params.json` states under its own keys, and its source as messages name it.

    `multiple_of` and `ffn_dim_multiplier` give the feed-forward width, and `use_scaled_rope`
    says that there is a rope_scaling, but not which one: see `add_unstated`. Another key, and a
    value out of its range, raise ValueError, a wrong type TypeError.
    """
    params, source = read_json(text_or_path, "params.json")
    if unknown := sorted(params.keys() - PARAMS.keys()):
        some = ", ".join(shown(key, 40) for key in unknown[:3])
        more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
        raise ValueError(
            f"{source} has keys this model has no use for ({some}{more}); known are "
            f"{', '.join(PARAMS)}: is it a Llama 2 or 3 text model?"
        )
    params = check(params, PARAMS, source)
    if params["vocab_size"] == -1 and vocab_size is None:
        raise ValueError(
            f"{source} has vocab_size -1, which means 'not set': pass vocab_size=32000 for a "
            "Llama 2, or the number of rows of its embedding"
        )
    stated = _LLAMA2 | params
    stated["n_kv_heads"] = params.get("n_kv_heads") or params["n_heads"]
    stated["vocab_size"] = vocab_size if params["vocab_size"] == -1 else params["vocab_size"]
    return stated, source


def add_unstated(stated: dict, rope_scaling: object, presets: dict, source: str) -> dict:
    """The keyword arguments of `LlamaConfig`: what a params.json states, and what it cannot.

    `rope_scaling`, `tie_embeddings` and `max_seq_len` are those of the presets of the same
    widths, theta and kind of RoPE, whatever their vocabulary and layers. Without such a preset,
    embedding and output are two tables, and the context is that of the release with such keys;
    but a scaled RoPE raises ValueError, unless `rope_scaling` was passed. That wins always.
    """
    numbers = {key: stated[key] for key in (*_WIDTHS, "n_layers", "vocab_size", "norm_eps")}
    scaled = stated["use_scaled_rope"]
    passed = {} if rope_scaling is None else {"rope_scaling": rope_scaling}
    if passed and not scaled:
        raise ValueError(f"{source} sets no use_scaled_rope, but a rope_scaling was passed")
    alike = []
    for preset in presets.values():
        same_rope = scaled == (preset["rope_scaling"] is not None)
        if same_rope and all(numbers[key] == preset[key] for key in _WIDTHS):
            alike.append({key: preset[key] for key in _UNSTATED})
    if alike and all(settings == alike[0] for settings in alike):
        return numbers | alike[0] | passed
    if scaled and not passed:
        raise ValueError(
            f"{source} sets use_scaled_rope without a factor, and no preset has these widths: "
            "pass rope_scaling=RopeScaling(factor=...) to LlamaConfig.from_params_json, or use "
            "this model in Hugging Face's format"
        )
    context = 131_072 if scaled else 4096 if numbers["rope_theta"] == 10_000 else 8192
    guessed = {"rope_scaling": None, "tie_embeddings": False, "max_seq_len": context}
    return numbers | guessed | passed


def read_huggingface(text_or_path: str | PathLike) -> tuple[dict, str]:
    """The keyword arguments of `LlamaConfig` in a `config.json`, and its source.

    What is damaged, or not implemented here, raises ValueError, a wrong type TypeError.
    """
    config, source = read_json(text_or_path, "config.json")
    config = check(config, HUGGINGFACE, source)
    check_computation(config, source)
    if config["model_type"] == "mistral":
        config = _MISTRAL | config
    numbers: dict[str, Any] = {
        ours: config.get(theirs) for theirs, ours in _HUGGINGFACE_NAMES.items()
    }
    numbers["n_kv_heads"] = numbers["n_kv_heads"] or numbers["n_heads"]
    numbers["max_seq_len"] = _within_window(config, source)
    numbers["tie_embeddings"] = config.get("tie_word_embeddings", False)
    numbers["rope_theta"], numbers["rope_scaling"] = read_rope(config, source)
    numbers["head_dim"] = config.get("head_dim") or 0
    return numbers, source


def _within_window(config: dict, source: str) -> int:
    """The context. Within its window a Mistral is a Llama; beyond it, it forgets old tokens."""
    context, window = config["max_position_embeddings"], config.get("sliding_window")
    if window is None or window >= context:
        return context
    if config["model_type"] == "mistral":
        return window
    if config.get("use_sliding_window") is not False:
        raise ValueError(
            f"{source} sets sliding_window to {window}, which changes the computation and is "
            "not implemented here for a Llama"
        )
    return context
