"""Part 2. Every number of every preset is pinned from its source, and no wrong number becomes a model."""

import dataclasses
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import decoding_llama3 as dl
from decoding_llama3.inference.data import data_directory

TYPED = os.environ.get("TYPED") == "1"  # then beartype refuses a wrong type first, in its own words

# Parameters; bytes of keys and values per token in bfloat16; theta; factor of scaled RoPE; context; tied.
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
preset = dl.LlamaConfig.from_preset


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
    assert all(type(number) is int for pair in heads.values() for number in pair)
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
        ({"dim": 4095, "head_dim": 0}, "dim 4095 is not divisible by n_heads 32"),
        ({"n_heads": 36, "dim": 4608}, "n_heads 36 is not divisible by n_kv_heads 8"),
        ({"n_heads": 8, "dim": 24, "head_dim": 0}, "head_dim 3 is odd, but RoPE rotates its pairs"),
        ({"n_kv_heads": 64}, "n_heads 32 is not divisible by n_kv_heads 64"),
        ({"n_layers": 0}, "n_layers must be positive and at most 268,435,456, found 0"),
        ({"head_dim": -2}, "head_dim must be positive and at most 268,435,456, found -2"),
        ({"hidden_dim": -1}, "hidden_dim must be positive and at most 268,435,456, found -1"),
        ({"norm_eps": 0.0}, "norm_eps must be positive and at most .*, found 0.0"),
        ({"norm_eps": float("nan")}, "norm_eps must be positive and at most .*, found nan"),
        ({"rope_theta": float("inf")}, "rope_theta must be positive and at most .*, found inf"),
        ({"rope_theta": 1e39}, "rope_theta must be positive and at most .*, found 1e"),
        ({"vocab_size": 2**62}, "vocab_size must be positive and at most 268,435,456, found 4611"),
        ({"hidden_dim": 2**70}, "hidden_dim must be positive and at most 268,435,456, found 1180"),
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
        ({"rope_scaling": {"factor": 8.0}}, r"rope_scaling must be RopeScaling \| None, found \{'factor': 8.0\}"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_a_wrong_type_is_told(change, words):
    with pytest.raises(TypeError, match=None if TYPED else words):
        dataclasses.replace(preset("llama3-8b"), **change)


def test_the_largest_sizes_make_a_model_of_shapes():
    """Catches a limit so high that PyTorch cannot count the bytes of one matrix."""
    sizes = {"dim": 2**28, "hidden_dim": 2**28, "vocab_size": 2**28, "n_heads": 2, "n_kv_heads": 2}
    with torch.device("meta"):
        model = dl.Transformer(dataclasses.replace(preset("llama3-8b"), n_layers=1, **sizes))
    assert model.output.weight.to(torch.float64).nbytes == 2**59


def test_scaling_is_checked_too():
    with pytest.raises(ValueError, match=r"high_freq_factor 1.0 must exceed low_freq_factor 1.0"):
        dl.RopeScaling(factor=8.0, high_freq_factor=1.0)
    with pytest.raises(ValueError, match=r"factor must be positive and at most .*, found 0\.0"):
        dl.RopeScaling(factor=0.0)
    with pytest.raises(TypeError, match="original_context"):
        dl.RopeScaling(factor=8.0, original_context=8192.5)
    with pytest.raises(TypeError, match="factor"):
        dl.RopeScaling()  # 8 for 3.1, 32 for 3.2: there is no default


def test_defaults_are_those_of_llama_3_and_a_configuration_stays_as_it_is():
    config = dl.LlamaConfig(dim=8, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=8, vocab_size=8)
    llama3 = preset("llama3-8b")
    for name in ("norm_eps", "rope_theta", "rope_scaling", "tie_embeddings", "max_seq_len"):
        assert getattr(config, name) == getattr(llama3, name), name
    for frozen in (config, dl.RopeScaling(factor=8.0)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.norm_eps = 1e-6
