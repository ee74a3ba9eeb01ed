"""Hugging Face's config.json: every setting is used or refused, and what stands in two places must agree.

tests/references/test_huggingface_config.py compares the logits of accepted and refused settings.
"""

import dataclasses
import json
import time

import pytest
from huggingface_configs import huggingface_config
from test_config import FACTS, TYPED, preset
from transformers import GenerationConfig, MistralConfig
from transformers import LlamaConfig as HuggingFaceConfig

import decoding_llama3 as dl

CONFIG_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
LLAMA31_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(**changes) -> dl.LlamaConfig:
    return dl.LlamaConfig.from_huggingface(json.dumps(CONFIG_8B | changes))


def without_theta(**changes) -> dl.LlamaConfig:
    values = {key: value for key, value in CONFIG_8B.items() if key != "rope_theta"}
    return dl.LlamaConfig.from_huggingface(json.dumps(values | changes))


def cases(case) -> str:
    return "-".join(f"{key}={value}" for key, value in case.items())[:60] if isinstance(case, dict) else ""


def test_files_are_read_by_path_by_directory_and_as_text(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_8B))
    for source in (tmp_path, str(tmp_path), tmp_path / "config.json", f"\n {json.dumps(CONFIG_8B)}"):
        assert dl.LlamaConfig.from_huggingface(source) == preset("llama3-8b")


@pytest.mark.parametrize("name", FACTS)
def test_config_json_written_by_transformers(name):
    """The oracle writes the file; every number must come back."""
    config, changes = preset(name), {}
    if "mistral" in name:
        changes = {"kind": MistralConfig, "sliding_window": None}
    if name == "mistral-7b-v0.1":  # it counts further than it looks
        changes |= {"sliding_window": 4096, "max_position_embeddings": 32_768}
    theirs = huggingface_config(config, **changes)
    assert dl.LlamaConfig.from_huggingface(theirs.to_json_string()) == config


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_theta": 5e5}, "llama3-8b"),
        ({"rope_theta": 500_000, "rope_scaling": None}, "llama3-8b"),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA31_ROPE}, "llama3.1-8b"),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA31_ROPE | {"type": "llama3", "mscale": None}}, "llama3.1-8b"),
        ({"rope_scaling": LLAMA31_ROPE | {"rope_theta": 5e5}}, "llama3.1-8b"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "llama3-8b"),
        ({"rope_parameters": LLAMA31_ROPE | {"rope_theta": 5e5}}, "llama3.1-8b"),
        ({"rope_theta": 5e5, "rope_parameters": LLAMA31_ROPE}, "llama3.1-8b"),
        ({"rope_theta": 5e5, "rope_parameters": {}, "rope_scaling": {}}, "llama3-8b"),
        ({"rope_theta": 5e5, "rope_parameters": {}, "rope_scaling": LLAMA31_ROPE}, "llama3.1-8b"),
        ({"rope_theta": 5e5, "rope_parameters": LLAMA31_ROPE, "rope_scaling": LLAMA31_ROPE}, "llama3.1-8b"),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else case,
)
def test_rope_settings_of_transformers_4_and_5(rope, expected):
    """Catches theta 10,000, the default, where a file keeps it in the other place."""
    config = without_theta(**rope)
    assert dataclasses.replace(config, max_seq_len=preset(expected).max_seq_len) == preset(expected)


def test_numbers_written_without_a_point_are_floats():
    config = read(rope_theta=500_000, rms_norm_eps=1, rope_scaling=LLAMA31_ROPE | {"factor": 32})
    assert (type(config.rope_theta), type(config.norm_eps), type(config.rope_scaling.factor)) == (float,) * 3


def test_theta_that_no_file_states_is_10_000():
    assert without_theta().rope_theta == HuggingFaceConfig().default_theta == 1e4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"rope_parameters": {"rope_theta": 1e4}},
            "rope_theta to 500000.0, but that in rope_parameters to 1000",
        ),
        (
            {"rope_scaling": LLAMA31_ROPE | {"rope_theta": 1e4}},
            "but that in rope_scaling to 10000.0: which of",
        ),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LLAMA31_ROPE},
            "sets factor in rope_parameters to null, but in rope_scaling to 8.0: which of the two is right",
        ),
        (
            {"rope_parameters": LLAMA31_ROPE, "rope_scaling": LLAMA31_ROPE | {"factor": 32.0}},
            "sets factor in rope_parameters to 8.0, but in rope_scaling to 32.0",
        ),
        (
            {"rope_parameters": LLAMA31_ROPE, "original_max_position_embeddings": 4096},
            "original_max_position_embeddings to 4096, but that in rope_parameters to 8192",
        ),
        ({"rope_scaling": LLAMA31_ROPE | {"type": "yarn"}}, "sets rope_type to 'llama3', but type to 'yarn'"),
    ],
    ids=cases,
)
def test_a_rope_setting_in_two_places_must_agree(change, words):
    """Catches the one that wins here and loses in transformers: logits differ by more than 1."""
    with pytest.raises(ValueError, match=f"the config.json given as text .*{words}"):
        read(**change)


def test_theta_in_one_of_two_places_is_refused():
    """transformers 5 takes rope_scaling whole, and with it theta 10,000."""
    with pytest.raises(ValueError, match=r"rope_theta in rope_parameters to 500000\.0, but in rope_scaling to"):
        without_theta(rope_parameters=LLAMA31_ROPE | {"rope_theta": 5e5}, rope_scaling=LLAMA31_ROPE)


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    ("rope", "words"),
    [
        ({"type": "linear", "factor": 2.0}, "sets the rope type to 'linear'"),
        ({"rope_type": "dynamic", "factor": 2.0}, "sets the rope type to 'dynamic'"),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.2}, "sets the rope type to 'yarn'"),
        ({"rope_type": "longrope", "short_factor": [1.0]}, "sets the rope type to 'longrope'"),
        ({"type": "\x1b[31m"}, r"sets the rope type to '\\x1b\[31m'"),
        ({"factor": 4.0}, "sets 'factor' to 4.0, which the rope type 'default' does not use: is the type missing"),
        ({"rope_type": "default", "factor": 4.0}, "sets 'factor' to 4.0, which the rope type 'default'"),
        ({"full_attention": {"rope_type": "yarn", "factor": 4.0}}, "sets 'full_attention' to {.*}, which"),
        (LLAMA31_ROPE | {"attention_factor": 1.2}, "sets 'attention_factor' to 1.2, which the rope type 'llama3'"),
        (LLAMA31_ROPE | {"beta_fast": 32}, "sets 'beta_fast' to 32, which the rope type 'llama3' does not use"),
        (LLAMA31_ROPE | {"mscale": 1.0}, "sets 'mscale' to 1.0"),
        ({"partial_rotary_factor": 0.5}, "rotates only part of each head"),
        ({"rope_type": "llama3", "factor": 8.0}, "lacks low_freq_factor, high_freq_factor, original_max"),
        (
            LLAMA31_ROPE | {"original_max_position_embeddings": 10**30},
            "sets original_max_position_embeddings to 1000.*, expected an integer",
        ),
        (LLAMA31_ROPE | {"factor": 0}, "sets factor to 0, expected a number of"),
        (LLAMA31_ROPE | {"rope_theta": 1e300}, r"sets rope_theta to 1e.300, expected a number of"),
    ],
    ids=cases,
)
def test_a_rope_setting_that_is_not_implemented_is_refused(place, rope, words):
    with pytest.raises(ValueError, match=f"{place} of the config.json given as text {words}"):
        read(**{place: rope})


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("value", [[1], [], "llama3", "", True, False, 4, 0.0], ids=repr)
def test_rope_settings_of_another_type_are_refused(place, value):
    with pytest.raises(TypeError, match=rf"sets {place} to .*, expected an object"):
        read(**{place: value})


@pytest.mark.parametrize(
    ("rope", "words"),
    [
        (LLAMA31_ROPE | {"factor": "8"}, "sets factor to '8', expected a number"),
        (LLAMA31_ROPE | {"factor": True}, "sets factor to true, expected a number"),
        (LLAMA31_ROPE | {"original_max_position_embeddings": 8192.0}, "to 8192.0, expected an integer"),
        ({"rope_type": ["llama3"]}, r"sets rope_type to \['llama3'\], expected a string"),
        ({"rope_type": None}, "sets rope_type to null, expected a string"),
        ({"rope_theta": None}, "sets rope_theta to null, expected a number"),
    ],
    ids=cases,
)
def test_a_rope_number_of_another_type_is_refused(rope, words):
    with pytest.raises(TypeError, match=f"rope_scaling of the config.json given as text sets .*{words[5:]}"):
        read(rope_scaling=rope)


def test_a_scaling_that_makes_no_sense_is_refused_with_the_name_of_the_file():
    with pytest.raises(ValueError, match=r"given as text: high_freq_factor 0\.5 must exceed low_freq"):
        read(rope_scaling=LLAMA31_ROPE | {"high_freq_factor": 0.5})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "qwen2"}, "sets model_type to 'qwen2', which changes the computation"),
        ({"model_type": "gemma"}, "sets model_type to 'gemma'"),
        ({"hidden_act": "gelu"}, "sets hidden_act to 'gelu', which changes the computation"),
        ({"attention_bias": True}, "sets attention_bias to true"),
        ({"attention_bias": 0}, "sets attention_bias to 0"),
        ({"mlp_bias": True}, "sets mlp_bias to true"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "sets quantization_config to"),
        ({"compression_config": {"bits": 4}}, "sets compression_config to"),
        ({"partial_rotary_factor": 0.5}, "sets partial_rotary_factor to 0.5"),
        ({"partial_rotary_factor": True}, "sets partial_rotary_factor to true"),
        ({"head_dim": 127}, ": head_dim 127 is odd, but RoPE rotates its pairs"),
        ({"num_attention_heads": 5}, ": dim 4096 is not divisible by n_heads 5"),
        ({"sliding_window": 4096}, "sets sliding_window to 4096, which changes the computation"),
        ({"sliding_window": 4096, "use_sliding_window": True}, "sets sliding_window to 4096"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sets layer_types to"),
        ({"layer_types": [{"a": 1}, None]}, "sets layer_types to"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "sets architectures to .'LlamaForSequenceClass"),
        ({"architectures": [["LlamaForCausalLM"]]}, "sets architectures to"),
        ({"per_layer_config": {"0": {"sliding_window": 2}}}, "sets per_layer_config to"),
        ({"pruned_heads": {"0": [1]}}, "sets pruned_heads to"),
        ({"attention_multiplier": 1.0}, "sets 'attention_multiplier' to 1.0, which is not known here and may"),
        ({"embedding_multiplier": 12.0}, "sets embedding_multiplier to 12.0"),
        ({"residual_multiplier": 0.22}, "sets residual_multiplier to 0.22"),
        ({"logits_scaling": 8.0}, "sets logits_scaling to 8.0"),
        ({"logit_scale": 0.0625}, "sets logit_scale to 0.0625"),
        ({"final_logit_softcapping": 30.0}, "sets 'final_logit_softcapping' to 30.0"),
        ({"attn_logit_softcapping": 50.0}, "sets 'attn_logit_softcapping' to 50.0"),
        ({"query_pre_attn_scalar": 256}, "sets 'query_pre_attn_scalar' to 256"),
        ({"scale_emb": 12}, "sets 'scale_emb' to 12"),
        ({"qk_norm": True}, "sets 'qk_norm' to true"),
        ({"use_qk_norm": True}, "sets 'use_qk_norm' to true"),
        ({"qk_layernorm": True}, "sets 'qk_layernorm' to true"),
        ({"rope_interleaved": True}, "sets 'rope_interleaved' to true"),
        ({"rotary_dim": 64}, "sets 'rotary_dim' to 64"),
        ({"no_rope_layers": [1, 0]}, "sets 'no_rope_layers' to"),
        ({"use_mrope": True}, "sets 'use_mrope' to true"),
        ({"attention_window": 512}, "sets 'attention_window' to 512"),
        ({"qkv_bias": True}, "sets 'qkv_bias' to true"),
        ({"alibi": True}, "sets 'alibi' to true"),
        ({"num_local_experts": 8}, "sets 'num_local_experts' to 8"),
        ({"moe_layers": "all"}, "sets 'moe_layers' to 'all'"),
        ({"clip_qkv": 8.0}, "sets 'clip_qkv' to 8.0"),
        ({"use_parallel_residual": True}, "sets 'use_parallel_residual' to true"),
        ({"norm_\x1b[31m": 1}, r"sets 'norm_\\x1b\[31m' to 1"),
    ],
    ids=cases,
)
def test_a_setting_that_changes_the_computation_is_refused(change, words):
    """Catches a setting dropped in silence: such a model runs, and every answer is a little or very wrong."""
    with pytest.raises(ValueError, match=f"the config.json given as text ?{words}") as caught:
        read(**change)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": "4096"}, "sets hidden_size to '4096', expected an integer"),
        (
            {"num_attention_heads": "ab", "head_dim": 2**31},
            "sets num_attention_heads to 'ab', expected an integer",
        ),
        ({"head_dim": {}}, "sets head_dim to {}, expected an integer"),
        ({"head_dim": "64"}, "sets head_dim to '64', expected an integer"),
        ({"tie_word_embeddings": "false"}, "sets tie_word_embeddings to 'false', expected true or false"),
        ({"tie_word_embeddings": None}, "sets tie_word_embeddings to null, expected true or false"),
        ({"tie_word_embeddings": 0}, "sets tie_word_embeddings to 0, expected true or false"),
        ({"use_sliding_window": "no"}, "sets use_sliding_window to 'no', expected true or false"),
        ({"model_type": "mistral", "sliding_window": "64"}, "sets sliding_window to '64', expected an integer"),
        ({"model_type": ["llama"]}, r"sets model_type to \['llama'\], expected a string"),
        ({"architectures": "LlamaForCausalLM"}, "sets architectures to 'LlamaForCausalLM', expected a list"),
        ({"layer_types": {}}, "sets layer_types to {}, expected a list"),
        ({"rms_norm_eps": [1e-5]}, r"sets rms_norm_eps to \[1e-05\], expected a number"),
        ({"rope_theta": "5e5"}, "sets rope_theta to '5e5', expected a number"),
        ({"rope_theta": None}, "sets rope_theta to null, expected a number"),
        ({"vocab_size": True}, "sets vocab_size to true, expected an integer"),
    ],
    ids=cases,
)
def test_a_wrong_type_is_refused(change, words):
    with pytest.raises(TypeError, match=None if TYPED else f"the config.json given as text {words}"):
        read(**change)


@pytest.mark.parametrize("size", [0, -1, 2**28 + 1, 2**62, 2**70, 10**30], ids=str)
@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "num_attention_heads",
        "num_key_value_heads",
        "num_hidden_layers",
        "max_position_embeddings",
        "head_dim",
        "original_max_position_embeddings",
        "sliding_window",
    ],
)
def test_sizes_that_no_model_has_are_refused(key, size):
    """Catches PyTorch's overflow in the middle of building, and a million layers built before they are counted."""
    words = rf"sets {key} to {str(size)[:6]}.*, expected an integer of at least 1 and at most 2?[16]\d"
    with pytest.raises(ValueError, match=words):
        read(**{key: size})


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "num_attention_heads", "vocab_size", "rms_norm_eps"])
def test_a_missing_key_is_refused(key):
    with pytest.raises(ValueError, match=f"the config.json given as text lacks {key}: "):
        read(**{key: None})


@pytest.mark.parametrize(
    "harmless",
    [
        {"attention_dropout": 0.1, "initializer_range": 0.02, "use_cache": True, "pretraining_tp": 2},
        {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "transformers_version": "4.40.0"},
        {"architectures": [], "layer_types": [], "pruned_heads": {}, "is_encoder_decoder": False},
        {"bos_token_id": 128_000, "eos_token_id": [128_001, 128_009], "pad_token_id": None},
        {"attention_bias": False, "mlp_bias": None, "quantization_config": None, "hidden_act": "silu"},
        {"head_dim": 128, "partial_rotary_factor": 1.0, "rope_scaling": None},
        {"head_dim": None, "_name_or_path": "x", "sliding_window": None},
        {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28},
        {"sliding_window": 8192, "layer_types": ["full_attention"] * 32},
        {"embedding_multiplier": 1.0, "logits_scaling": 1, "residual_multiplier": None},
        {"qk_norm": False, "rope_interleaved": False, "attn_logit_softcapping": None, "clip_qkv": None},
        {"original_max_position_embeddings": 4096},
        {"unsloth_version": "2024.9", "unsloth_fixed": True, "use_liger": 1, "warmup_steps": 100, "property": 3},
        {
            "residual_dropout": 0.1,
            "resid_pdrop": 0.1,
            "id2label": {"0": "LABEL_0"},
            "auto_map": {"AutoModel": "x"},
        },
    ],
    ids=lambda case: next(iter(case)),
)
def test_a_setting_that_changes_nothing_is_ignored(harmless):
    assert read(**harmless) == preset("llama3-8b")


def test_settings_of_sampling_are_ignored():
    """Old files hold them; transformers moves them to generation_config.json."""
    sampling = dict.fromkeys(GenerationConfig().to_dict(), 0.5)
    assert read(**sampling) == preset("llama3-8b")


def test_a_hundred_thousand_unknown_keys_are_read_at_once():
    started = time.process_time()
    assert read(**{f"key_{i}": i for i in range(100_000)}) == preset("llama3-8b")
    assert time.process_time() - started < 5


def test_without_kv_heads_every_query_head_has_its_own():
    assert read(num_key_value_heads=None).n_kv_heads == 32


def test_mistral_counts_up_to_its_window():
    """Catches a Mistral that looks beyond its 4,096 tokens, where it was trained not to."""
    mistral = {"model_type": "mistral", "max_position_embeddings": 32_768}
    assert read(**mistral, sliding_window=4096).max_seq_len == 4096
    assert read(**mistral, sliding_window=4096, use_sliding_window=False).max_seq_len == 4096  # as transformers
    assert read(**mistral, sliding_window=None).max_seq_len == 32_768
    assert read(**mistral).max_seq_len == MistralConfig().sliding_window == 4096
    assert read(**mistral | {"max_position_embeddings": 2048}, sliding_window=4096).max_seq_len == 2048
