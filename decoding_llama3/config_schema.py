"""Part 2 - what the keys of `params.json` and `config.json` may hold, in tables.

Types, ranges and sizes are checked here before anything is computed from them.
"""

import re
from typing import Any, NamedTuple

from decoding_llama3.json_files import equal, shown

_TYPES = {
    "an integer": int,
    "a number": (int, float),
    "true or false": bool,
    "a string": str,
    "a list": list,
    "an object": dict,
}


class Setting(NamedTuple):
    """What one key may hold; `low` and `high` bound numbers, both included."""

    kind: str
    low: float = 0
    high: float = 0
    required: bool = False
    null: bool = False


SIZE = 2**28  # no model comes near, and torch can count the bytes of a matrix of this size
_WIDTH = Setting("an integer", 1, SIZE, required=True)
_LAYERS = Setting("an integer", 1, 10_000, required=True)
_EPS = Setting("a number", 1e-20, 1, required=True)
THETA = Setting("a number", 1, 10**15)

PARAMS = {
    "dim": _WIDTH,
    "n_layers": _LAYERS,
    "n_heads": _WIDTH,
    "vocab_size": Setting("an integer", -1, SIZE, required=True),
    "multiple_of": _WIDTH,
    "norm_eps": _EPS,
    "n_kv_heads": Setting("an integer", 1, SIZE, null=True),
    "ffn_dim_multiplier": Setting("a number", 1e-3, 1000, null=True),
    "rope_theta": THETA,
    "use_scaled_rope": Setting("true or false"),
}
HUGGINGFACE = {
    "model_type": Setting("a string", required=True),
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _WIDTH,
    "intermediate_size": _WIDTH,
    "vocab_size": _WIDTH,
    "max_position_embeddings": _WIDTH,
    "rms_norm_eps": _EPS,
    "num_key_value_heads": Setting("an integer", 1, SIZE, null=True),
    "head_dim": Setting("an integer", 1, SIZE, null=True),
    "tie_word_embeddings": Setting("true or false"),
    "rope_theta": THETA,
    "rope_parameters": Setting("an object", null=True),
    "rope_scaling": Setting("an object", null=True),
    "original_max_position_embeddings": Setting("an integer", 1, SIZE, null=True),
    "sliding_window": Setting("an integer", 1, SIZE, null=True),
    "use_sliding_window": Setting("true or false", null=True),
    "architectures": Setting("a list", null=True),
    "layer_types": Setting("a list", null=True),
}
# Other keys of config.json: values whose computation is ours. A missing key means the first.
_IMPLEMENTED = {
    "model_type": ("llama", "mistral"),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "partial_rotary_factor": (1.0, None),
    "per_layer_config": (None, {}),
    "pruned_heads": ({}, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "embedding_multiplier": (1.0, None),
    "residual_multiplier": (1.0, None),
    "logits_scaling": (1.0, None),
    "logit_scale": (1.0, None),
}
# An unknown setting is most often a note of the program that trained the model. With one of
# these words at the start of a part of its name, it may be a variant of the architecture.
_ARCHITECTURAL = re.compile(
    r"softcap|(^|_)(layer|rms|qk|m)?(scal|multiplier|window|norm|rope|rotary|bias|alibi|expert|"
    r"moe|clip|residual|sink|ntk|mup|nope)"
)
_SWITCHED_OFF = (None, False, {}, [], "")
_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "LLaMAForCausalLM")
_UNUSED = {"max_window_layers", "sequence_bias", "guidance_scale"}  # the last two of sampling


def check(values: dict, table: dict[str, Setting], source: str) -> dict:
    """The same values, those of the kind "a number" as float.

    What is missing or out of its range raises ValueError, another type TypeError.
    """
    required = [key for key, setting in table.items() if setting.required]
    missing = ", ".join(key for key in required if values.get(key) is None)
    if missing:
        raise ValueError(f"{source} lacks {missing}: is it the file of a Llama model, whole?")
    checked = dict(values)
    for key, (kind, low, high, _, null) in table.items():
        value: Any = values.get(key)
        if key not in values or (null and value is None):
            continue
        wanted, number = f"{source} sets {key} to {shown(value)}, expected {kind}", high > 0
        if not isinstance(value, _TYPES[kind]) or (number and isinstance(value, bool)):
            raise TypeError(wanted)
        if number and not low <= value <= high:
            raise ValueError(f"{wanted} of at least {low:,} and at most {high:,}")
        checked[key] = float(value) if kind == "a number" else value
    return checked


def check_computation(config: dict, source: str) -> None:
    """A setting that changes the computation and is not used here raises ValueError."""
    for key, values in _IMPLEMENTED.items():
        if not any(equal(config.get(key, values[0]), value) for value in values):
            raise ValueError(
                f"{source} sets {key} to {shown(config[key])}, which changes the computation "
                f"and is not implemented here; only {shown(values[0])} is"
            )
    classes = config.get("architectures") or _ARCHITECTURES
    if not any(name in _ARCHITECTURES for name in classes):
        raise ValueError(
            f"{source} sets architectures to {shown(classes)}; only LlamaForCausalLM and "
            "MistralForCausalLM are implemented here"
        )
    layers = config.get("layer_types") or ()
    if any(kind != "full_attention" for kind in layers):
        raise ValueError(
            f"{source} sets layer_types to {shown(layers)}, which changes the computation and "
            "is not implemented here; only 'full_attention' is"
        )
    known = HUGGINGFACE.keys() | _IMPLEMENTED.keys() | _UNUSED
    for key, value in config.items():
        if key in known or any(equal(value, off) for off in _SWITCHED_OFF):
            continue
        if _ARCHITECTURAL.search(key.lower()) and "dropout" not in key.lower():
            raise ValueError(
                f"{source} sets {shown(key)} to {shown(value)}, which is not known here and "
                "may change the computation: if the model has no use for it, delete it there"
            )
