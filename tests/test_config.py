"""Part 2. Every number of every preset is pinned from its source, and the two files it comes in are read whole."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_models.sku_list import all_registered_models
from safetensors import safe_open
from transformers import LlamaConfig as HuggingFaceConfig
from transformers import MistralConfig

import decoding_llama3 as dl
from decoding_llama3.inference.data import data_directory

TYPED = os.environ.get("TYPED") == "1"  # then beartype refuses a wrong type first, in its own words

# Parameters; bytes of keys and values a token in bfloat16; theta; factor of scaled RoPE; context; tied.
# Counts are those of the released checkpoints, the rest is in their model cards and config.json files.
FACTS = {
    "llama2-7b": (6_738_415_616, 524_288, 1e4, None, 4096, False),
    "llama2-13b": (13_015_864_320, 819_200, 1e4, None, 4096, False),
    "llama2-70b": (68_976_648_192, 327_680, 1e4, None, 4096, False),
    "llama3-8b": (8_030_261_248, 131_072, 5e5, None, 8192, False),
    "llama3-70b": (70_553_706_496, 327_680, 5e5, None, 8192, False),
    "llama3.1-8b": (8_030_261_248, 131_072, 5e5, 8.0, 131_072, False),
    "llama3.1-70b": (70_553_706_496, 327_680, 5e5, 8.0, 131_072, False),
    "llama3.1-405b": (405_853_388_800, 516_096, 5e5, 8.0, 131_072, False),
    "llama3.2-1b": (1_235_814_400, 32_768, 5e5, 32.0, 131_072, True),
    "llama3.2-3b": (3_212_749_824, 114_688, 5e5, 32.0, 131_072, True),
    "llama3.3-70b": (70_553_706_496, 327_680, 5e5, 8.0, 131_072, False),
    "mistral-7b-v0.1": (7_241_732_096, 131_072, 1e4, None, 4096, False),
    "mistral-7b-v0.3": (7_248_023_552, 131_072, 1e6, None, 32_768, False),
    "tiny": (5_573_888, 1536, 1e4, None, 512, True),
}
# dim, multiple_of, multiplier of params.json, and the width they give.
WIDTHS = {
    "llama2-7b": (4096, 256, None, 11_008),
    "llama2-13b": (5120, 256, None, 13_824),  # 13,653: the closest multiple would be 13,568
    "llama2-70b": (8192, 4096, 1.3, 28_672),
    "llama3-8b": (4096, 1024, 1.3, 14_336),
    "llama3-70b": (8192, 4096, 1.3, 28_672),
    "llama3.1-405b": (16_384, 4096, 1.2, 53_248),
    "llama3.2-1b": (2048, 256, 1.5, 8192),
    "llama3.2-3b": (3072, 256, 1.0, 8192),
}
META_NAMES = {  # Meta's list of models: right for Llama 3 to 3.3
    "Llama-3-8B": "llama3-8b",
    "Llama-3-70B": "llama3-70b",
    "Llama3.1-8B": "llama3.1-8b",
    "Llama3.1-70B": "llama3.1-70b",
    "Llama3.1-405B": "llama3.1-405b",
    "Llama3.2-1B": "llama3.2-1b",
    "Llama3.2-3B": "llama3.2-3b",
    "Llama3.3-70B-Instruct": "llama3.3-70b",
}
META_PARAMS = {model.descriptor(): model.arch_args for model in all_registered_models()}
PARAMS_8B = META_PARAMS["Llama-3-8B"]
PARAMS_LLAMA2 = {  # as released with Llama 2 7B
    "dim": 4096,
    "multiple_of": 256,
    "n_heads": 32,
    "n_layers": 32,
    "norm_eps": 1e-5,
    "vocab_size": -1,
}
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

preset = dl.LlamaConfig.from_preset


def read_meta(values: dict, **options) -> dl.LlamaConfig:
    return dl.LlamaConfig.from_params_json(json.dumps(values), **options)


def read_huggingface(**changes) -> dl.LlamaConfig:
    return dl.LlamaConfig.from_huggingface(json.dumps(CONFIG_8B | changes))


def test_every_preset_is_pinned():
    assert list(dl.PRESETS) == list(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_parameters(name):
    """Catches one wrong shape: the formula and the model itself give the count of the released weights."""
    config = preset(name)
    with torch.device("meta"):
        model = dl.Transformer(config)
    assert config.n_params == sum(weight.numel() for weight in model.parameters()) == FACTS[name][0]


def test_tiny_is_the_model_in_data():
    with safe_open(data_directory() / "tiny-llama3" / "model.safetensors", framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 (no dict)
    assert sum(torch.Size(shape).numel() for shape in shapes) == preset("tiny").n_params


@pytest.mark.parametrize("name", FACTS)
def test_cache_bytes_rope_context_and_tying(name):
    """Catches 8 KV heads for Llama 2, theta 500,000 for it, factor 8 for 3.2, an untied 3.2."""
    _, cache, theta, factor, context, tied = FACTS[name]
    config = preset(name)
    assert config.kv_cache_bytes(seq_len=1) == cache
    assert (config.rope_theta, config.max_seq_len, config.tie_embeddings) == (theta, context, tied)
    assert config.norm_eps == 1e-5
    scaling = factor and dl.RopeScaling(
        factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
    )
    assert config.rope_scaling == scaling


@pytest.mark.parametrize(
    ("name", "tokens", "gib"),
    [
        ("llama3-8b", 8192, 1),
        ("llama3-70b", 8192, 2.5),
        ("llama3.1-405b", 131_072, 63),
        ("llama3.1-8b", 131_072, 16),
    ],
)
def test_cache_bytes_of_a_context(name, tokens, gib):
    """Catches query heads counted in place of KV heads (4 GiB for the 8B), and keys without values."""
    config = preset(name)
    assert config.kv_cache_bytes(tokens) == gib * 2**30
    assert config.kv_cache_bytes(tokens, batch=3) == 3 * gib * 2**30
    assert config.kv_cache_bytes(tokens, dtype=torch.float32) == 2 * gib * 2**30
    assert config.kv_cache_bytes(tokens, dtype=torch.float8_e4m3fn) == gib * 2**29


def test_heads():
    heads = {name: (preset(name).head_dim, preset(name).queries_per_kv) for name in FACTS}
    assert heads["llama3-8b"] == (128, 4)
    assert heads["llama3-70b"] == (128, 8)
    assert heads["llama3.1-405b"] == (128, 16)
    assert heads["llama3.2-1b"] == (64, 4)
    assert heads["llama2-7b"] == (128, 1)


def test_llama_3_with_a_small_vocabulary_is_mistral():
    """To the last parameter; both are the shape of one model."""
    assert (
        dataclasses.replace(preset("llama3-8b"), vocab_size=32_000).n_params == preset("mistral-7b-v0.1").n_params
    )


@pytest.mark.parametrize("name", WIDTHS)
def test_feed_forward_widths(name):
    """Catches rounding down or to the closest, and % where // belongs."""
    *rule, width = WIDTHS[name]
    assert dl.ffn_hidden_dim(*rule) == width == preset(name).hidden_dim


def test_both_products_are_cut_to_whole_numbers():
    """The exact 14,199.5 would be cut to 14,199; 10,922.67 is cut first, and 1.3 times 10,922 is 14,198.6."""
    assert dl.ffn_hidden_dim(4096, 1, 1.3) == 14_198
    assert dl.ffn_hidden_dim(4096, 1) == 10_922


@given(
    dim=st.integers(1, 50_000),
    multiple_of=st.integers(1, 8192),
    multiplier=st.none() | st.floats(0.01, 8),
)
@settings(deadline=None, derandomize=True)
def test_a_width_is_the_next_multiple(dim, multiple_of, multiplier):
    """Whatever the numbers: a multiple, not below what the rule asks for, and by less than one step above."""
    width = dl.ffn_hidden_dim(dim, multiple_of, multiplier)
    wanted = 8 * dim // 3 if multiplier is None else int(multiplier * (8 * dim // 3))
    assert width % multiple_of == 0
    assert 0 <= width - wanted < multiple_of


def test_a_config_cannot_be_changed_or_filled_by_position():
    config = preset("llama3-8b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 1
    with pytest.raises(TypeError, match="positional"):
        dl.LlamaConfig(4096, 32, 32, 8, 14_336, 128_256)
    assert len({config, preset("llama3-8b"), preset("llama3.1-8b")}) == 2


def test_a_preset_that_is_not_there_is_told():
    with pytest.raises(ValueError, match=r"no preset is called 'llama3-9b'; there are llama2-7b, .*, tiny"):
        preset("llama3-9b")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 4095}, "dim 4095 is not divisible by n_heads 32"),
        ({"n_heads": 36, "dim": 4608}, "n_heads 36 is not divisible by n_kv_heads 8"),
        ({"n_heads": 8, "dim": 24}, r"head_dim 3 \(dim / n_heads\) is odd, but RoPE rotates pairs"),
        ({"n_kv_heads": 64}, "n_heads 32 is not divisible by n_kv_heads 64"),
        ({"n_layers": 0}, "n_layers must be positive, found 0"),
        ({"hidden_dim": -1}, "hidden_dim must be positive, found -1"),
        ({"norm_eps": 0.0}, "norm_eps must be positive, found 0.0"),
        ({"norm_eps": float("nan")}, "norm_eps must be positive, found nan"),
        ({"rope_theta": float("inf")}, "rope_theta must be positive, found inf"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_a_wrong_value_is_told(change, words):
    """Catches a model that is built, and only fails or misleads inside."""
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(preset("llama3-8b"), **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": "4096"}, "dim must be int, found '4096'"),
        ({"dim": 4096.0}, "dim must be int, found 4096.0"),
        ({"n_layers": True}, "n_layers must be int, found True"),
        ({"tie_embeddings": 1}, "tie_embeddings must be bool, found 1"),
        ({"norm_eps": None}, "norm_eps must be float, found None"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_a_wrong_type_is_told(change, words):
    with pytest.raises(TypeError, match=None if TYPED else words):
        dataclasses.replace(preset("llama3-8b"), **change)


def test_scaling_is_checked_too():
    with pytest.raises(ValueError, match=r"high_freq_factor 1.0 must exceed low_freq_factor 1.0"):
        dl.RopeScaling(factor=8.0, high_freq_factor=1.0)
    with pytest.raises(ValueError, match=r"factor must be positive, found 0\.0"):
        dl.RopeScaling(factor=0.0)
    with pytest.raises(TypeError, match="original_context"):
        dl.RopeScaling(factor=8.0, original_context=8192.5)
    with pytest.raises(TypeError, match="factor"):
        dl.RopeScaling()  # 8 for 3.1, 32 for 3.2: there is no default


@pytest.mark.parametrize("name", META_NAMES)
def test_params_json_of_every_model(name):
    """Catches factor 8 for 3.2 and its untied output: the file says neither, the released models do."""
    assert read_meta(META_PARAMS[name]) == preset(META_NAMES[name])


def test_params_json_of_llama_2():
    """It states neither KV heads, nor theta, nor the vocabulary."""
    assert read_meta(PARAMS_LLAMA2, vocab_size=32_000) == preset("llama2-7b")
    with pytest.raises(ValueError, match=r"vocab_size -1, which means 'not set': pass vocab_size=32000"):
        read_meta(PARAMS_LLAMA2)


def test_params_json_of_a_model_without_preset():
    """The same keys, other numbers: nothing of the closest preset may slip in."""
    config = read_meta(PARAMS_8B | {"n_layers": 31, "norm_eps": 1e-6, "use_scaled_rope": True})
    assert config == dataclasses.replace(preset("llama3.1-8b"), n_layers=31, norm_eps=1e-6)
    assert read_meta(PARAMS_8B | {"n_layers": 31}) == dataclasses.replace(preset("llama3-8b"), n_layers=31)
    old = read_meta(PARAMS_LLAMA2 | {"norm_eps": 1e-6}, vocab_size=32_000)
    assert old == dataclasses.replace(preset("llama2-7b"), norm_eps=1e-6)


@pytest.mark.parametrize(
    "name", ["Llama3.2-11B-Vision", "Llama3.2-1B-Instruct:int4-qlora-eo8", "Llama-Guard-3-1B:int4"]
)
def test_params_json_with_unknown_keys_is_refused(name):
    """Catches images, quantisation or pruning dropped in silence."""
    with pytest.raises(ValueError, match=r"keys this model has no use for \((vision|lora|hidden)[a-z_, ]+\)"):
        read_meta(META_PARAMS[name])


@pytest.mark.parametrize("key", ["dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "norm_eps"])
def test_params_json_with_a_key_missing_is_refused(key):
    with pytest.raises(ValueError, match=rf"the params.json given as text lacks {key}: "):
        read_meta({name: value for name, value in PARAMS_8B.items() if name != key})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_layers": "32"}, "n_layers must be int, found '32'"),
        ({"norm_eps": "1e-5"}, "norm_eps must be float, found '1e-5'"),
        ({"rope_theta": None}, "rope_theta must be float, found None"),
        ({"n_kv_heads": 8.5}, "n_kv_heads must be int, found 8.5"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_params_json_with_a_wrong_type_is_refused(change, words):
    with pytest.raises(TypeError, match=None if TYPED else words):
        read_meta(PARAMS_8B | change)


@pytest.mark.parametrize("read", [dl.LlamaConfig.from_params_json, dl.LlamaConfig.from_huggingface])
@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("{", ValueError, "given as text is not valid JSON .*: download it again"),
        ("nowhere.json", ValueError, "no file nowhere.json: pass the path of a (params|config).json, or its text"),
        (Path("nowhere.json"), ValueError, "no file nowhere.json"),
        ("{}", ValueError, "lacks (dim|model_type), .*: is it the file of a Llama model, whole"),
        (None, TypeError, "given as text or path, found NoneType"),
        ({"dim": 1}, TypeError, "given as text or path, found dict"),
        (b"{}", TypeError, "given as text or path, found bytes"),
    ],
    ids=["bad JSON", "no file", "no path", "empty", "None", "dict", "bytes"],
)
def test_what_is_no_file_is_told(read, source, error, words):
    with pytest.raises(error, match=None if TYPED and error is TypeError else words):
        read(source)


def test_a_file_that_holds_no_object_is_told(tmp_path):
    (tmp_path / "params.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds a JSON list, expected an object"):
        dl.LlamaConfig.from_params_json(tmp_path / "params.json")


def test_files_are_read_by_path_by_directory_and_as_text(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(PARAMS_8B))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_8B))
    for source in (tmp_path, str(tmp_path)):
        assert dl.LlamaConfig.from_params_json(source) == preset("llama3-8b")
        assert dl.LlamaConfig.from_huggingface(source) == preset("llama3-8b")
    assert dl.LlamaConfig.from_params_json(tmp_path / "params.json") == preset("llama3-8b")
    assert dl.LlamaConfig.from_huggingface(str(tmp_path / "config.json")) == preset("llama3-8b")
    assert dl.LlamaConfig.from_huggingface(f"\n  {json.dumps(CONFIG_8B)}\n") == preset("llama3-8b")


@pytest.mark.parametrize("name", FACTS)
def test_config_json_written_by_transformers(name):
    """The oracle writes the file; every number must come back."""
    config = preset(name)
    rope = {"rope_type": "default"}
    if config.rope_scaling is not None:
        rope = LLAMA31_ROPE | {"factor": config.rope_scaling.factor}
    mistral = {"sliding_window": 4096 if name.endswith("v0.1") else None}
    kind, extra = (MistralConfig, mistral) if "mistral" in name else (HuggingFaceConfig, {})
    theirs = kind(
        hidden_size=config.dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        intermediate_size=config.hidden_dim,
        vocab_size=config.vocab_size,
        rms_norm_eps=config.norm_eps,
        max_position_embeddings=32_768 if name.endswith("v0.1") else config.max_seq_len,
        tie_word_embeddings=config.tie_embeddings,
        rope_parameters={"rope_theta": config.rope_theta, **rope},
        **extra,
    )
    assert dl.LlamaConfig.from_huggingface(theirs.to_json_string()) == config


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_theta": 5e5}, "llama3-8b"),
        ({"rope_theta": 5e5, "rope_scaling": None}, "llama3-8b"),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA31_ROPE}, "llama3.1-8b"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "llama3-8b"),
        ({"rope_parameters": LLAMA31_ROPE | {"rope_theta": 5e5}}, "llama3.1-8b"),
        ({"rope_theta": 5e5, "rope_parameters": LLAMA31_ROPE}, "llama3.1-8b"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, "llama3-8b"),
    ],
    ids=["v4", "v4 null", "v4 scaled", "v5", "v5 scaled", "mixed", "v5 wins"],
)
def test_rope_settings_of_transformers_4_and_5(rope, expected):
    """Catches theta 10,000, the default, where a file keeps it in the other place."""
    values = {key: value for key, value in CONFIG_8B.items() if key != "rope_theta"} | rope
    config = dl.LlamaConfig.from_huggingface(json.dumps(values))
    assert dataclasses.replace(config, max_seq_len=preset(expected).max_seq_len) == preset(expected)


def test_theta_that_no_file_states_is_10_000():
    values = {key: value for key, value in CONFIG_8B.items() if key != "rope_theta"}
    assert (
        dl.LlamaConfig.from_huggingface(json.dumps(values)).rope_theta == HuggingFaceConfig().default_theta == 1e4
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "qwen2"}, 'sets model_type to "qwen2"'),
        ({"model_type": "gemma"}, 'sets model_type to "gemma"'),
        ({"hidden_act": "gelu"}, 'sets hidden_act to "gelu", which changes the computation'),
        ({"attention_bias": True}, "sets attention_bias to true"),
        ({"mlp_bias": True}, "sets mlp_bias to true"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "sets quantization_config to"),
        ({"partial_rotary_factor": 0.5}, "sets partial_rotary_factor to 0.5"),
        ({"head_dim": 256}, "sets head_dim to 256, but only hidden_size / num_attention_heads = 4096 / 32"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "sets the rope type to 'linear'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "sets the rope type to 'dynamic'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "sets the rope type to 'yarn'"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "sets the rope type to 'longrope'"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "rotates only part of each head"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "the rope settings of .* lacks low_freq_factor",
        ),
    ],
    ids=lambda case: "-".join(str(part) for part in case.items()) if isinstance(case, dict) else "",
)
def test_a_setting_that_changes_the_computation_is_refused(change, words):
    """Catches a setting dropped in silence: such a model runs, and every answer is a little or very wrong."""
    with pytest.raises(ValueError, match=words):
        read_huggingface(**change)


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "num_attention_heads", "vocab_size", "rms_norm_eps"])
def test_config_json_with_a_key_missing_is_refused(key):
    with pytest.raises(ValueError, match=f"the config.json given as text lacks {key}: "):
        read_huggingface(**{key: None})


@pytest.mark.parametrize(
    "harmless",
    [
        {"attention_dropout": 0.1, "initializer_range": 0.02, "use_cache": True, "pretraining_tp": 1},
        {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "transformers_version": "4.40.0"},
        {"bos_token_id": 128_000, "eos_token_id": [128_001, 128_009], "pad_token_id": None},
        {"attention_bias": False, "mlp_bias": None, "quantization_config": None, "hidden_act": "silu"},
        {"head_dim": 128, "partial_rotary_factor": 1.0, "rope_scaling": None},
        {"head_dim": None, "_name_or_path": "x", "sliding_window": None},
    ],
    ids=lambda case: next(iter(case)),
)
def test_a_setting_that_changes_nothing_is_ignored(harmless):
    assert read_huggingface(**harmless) == preset("llama3-8b")


def test_without_kv_heads_every_query_head_has_its_own():
    assert read_huggingface(num_key_value_heads=None).n_kv_heads == 32


def test_mistral_counts_up_to_its_window():
    """Catches a Mistral that looks beyond its 4,096 tokens, where it was trained not to."""
    mistral = {"model_type": "mistral", "max_position_embeddings": 32_768}
    assert read_huggingface(**mistral, sliding_window=4096).max_seq_len == 4096
    assert read_huggingface(**mistral, sliding_window=None).max_seq_len == 32_768
    assert read_huggingface(**mistral).max_seq_len == 32_768
    assert read_huggingface(**mistral | {"max_position_embeddings": 2048}, sliding_window=4096).max_seq_len == 2048
