"""Meta's params.json: what it states is read whole; the rest comes from presets of the same widths."""

import dataclasses
import json

import pytest
from llama_models.sku_list import all_registered_models
from test_config import TYPED, preset

import decoding_llama3 as dl
from decoding_llama3.config_files import add_unstated

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
PARAMS_1B = META_PARAMS["Llama3.2-1B"]
PARAMS_LLAMA2 = {  # as released with Llama 2 7B
    "dim": 4096,
    "multiple_of": 256,
    "n_heads": 32,
    "n_layers": 32,
    "norm_eps": 1e-5,
    "vocab_size": -1,
}
NO_PRESET = PARAMS_1B | {"n_heads": 16, "n_kv_heads": 4}


def read(values: dict, **options) -> dl.LlamaConfig:
    return dl.LlamaConfig.from_params_json(json.dumps(values), **options)


@pytest.mark.parametrize("name", META_NAMES)
def test_params_json_of_every_model(name):
    """Catches factor 8 for 3.2 and its untied output: the file says neither, the released models do."""
    assert read(META_PARAMS[name]) == preset(META_NAMES[name])


def test_numbers_written_without_a_point_are_floats():
    """JSON has one kind of number; catches an integer that PyTorch would have to hold in 64 bits."""
    config = read(PARAMS_1B | {"rope_theta": 500_000, "ffn_dim_multiplier": 1.5, "norm_eps": 1})
    assert (type(config.rope_theta), type(config.norm_eps)) == (float, float)
    assert config == dataclasses.replace(preset("llama3.2-1b"), norm_eps=1.0)


def test_params_json_of_llama_2():
    """It states neither KV heads, nor theta, nor the vocabulary."""
    assert read(PARAMS_LLAMA2, vocab_size=32_000) == preset("llama2-7b")
    assert read(PARAMS_LLAMA2 | {"n_kv_heads": None, "ffn_dim_multiplier": None}, vocab_size=32_000) == preset(
        "llama2-7b"
    )
    with pytest.raises(ValueError, match=r"vocab_size -1, which means 'not set': pass vocab_size=32000"):
        read(PARAMS_LLAMA2)


@pytest.mark.parametrize("name", META_NAMES)
@pytest.mark.parametrize(
    "changes", [{"vocab_size": 128_264}, {"n_layers": 12}, {"norm_eps": 1e-6}, {"vocab_size": -1}]
)
def test_grown_and_pruned_models_keep_rope_and_tying(name, changes):
    """Catches the factor 8 and untied embeddings guessed for a Llama 3.2 1B with eight added tokens."""
    config = read(META_PARAMS[name] | changes, vocab_size=128_264)
    if changes.get("vocab_size") == -1:
        changes = {"vocab_size": 128_264}
    assert config == dataclasses.replace(preset(META_NAMES[name]), **changes)


def test_a_scaled_rope_without_a_preset_is_refused():
    """The file does not state the factor: 8 and 32 were released."""
    words = r"sets use_scaled_rope without a factor, and no preset has these widths: pass rope_scaling=RopeScaling"
    with pytest.raises(ValueError, match=words):
        read(NO_PRESET)
    scaling = dl.RopeScaling(factor=4.0, original_context=4096)
    config = read(NO_PRESET, rope_scaling=scaling)
    assert (config.rope_scaling, config.tie_embeddings, config.max_seq_len) == (scaling, False, 131_072)


def test_a_scaling_that_is_passed_wins_over_that_of_the_preset():
    scaling = dl.RopeScaling(factor=8.0)  # Meta's own code reads the 3.2 models so
    assert read(PARAMS_1B, rope_scaling=scaling) == dataclasses.replace(
        preset("llama3.2-1b"), rope_scaling=scaling
    )
    with pytest.raises(ValueError, match="sets no use_scaled_rope, but a rope_scaling was passed"):
        read(PARAMS_8B, rope_scaling=scaling)
    with pytest.raises(TypeError, match="RopeScaling"):
        read(PARAMS_1B, rope_scaling=8.0)


def test_presets_of_the_same_widths_that_differ_decide_nothing():
    """Catches the first of them taken for the right one."""
    stated = PARAMS_1B | {"hidden_dim": 8192}
    ours = dl.PRESETS["llama3.2-1b"]
    other = ours | {"tie_embeddings": False}
    assert add_unstated(stated, None, {"a": ours, "b": ours}, "x")["tie_embeddings"] is True
    with pytest.raises(ValueError, match="x sets use_scaled_rope without a factor"):
        add_unstated(stated, None, {"a": ours, "b": other}, "x")


def test_without_scaled_rope_the_release_is_known_by_theta():
    """Every release before 3.1 has two tables; Llama 2 was trained for 4,096 tokens, Llama 3 for 8,192."""
    other = {"dim": 512, "n_heads": 8, "n_kv_heads": 4}
    config = read(PARAMS_8B | other)
    assert (config.tie_embeddings, config.max_seq_len, config.rope_scaling) == (False, 8192, None)
    assert read(PARAMS_LLAMA2 | {"dim": 512, "n_heads": 8}, vocab_size=999).max_seq_len == 4096


def test_the_vocabulary_of_the_file_is_taken_before_the_one_passed():
    assert read(PARAMS_8B, vocab_size=7) == preset("llama3-8b")
    with pytest.raises(ValueError, match="given as text: vocab_size must be positive"):
        read(PARAMS_LLAMA2, vocab_size=0)
    with pytest.raises(ValueError, match="given as text: vocab_size must be positive"):
        read(PARAMS_8B | {"vocab_size": 0})


@pytest.mark.parametrize(
    "name", ["Llama3.2-11B-Vision", "Llama3.2-1B-Instruct:int4-qlora-eo8", "Llama-Guard-3-1B:int4"]
)
def test_unknown_keys_are_refused(name):
    """Catches images, quantisation or pruning dropped in silence."""
    with pytest.raises(
        ValueError, match=r"keys this model has no use for \('(vision|lora|hidden)[a-z_', ]+\); known are"
    ):
        read(META_PARAMS[name])


def test_many_unknown_keys_are_counted():
    many = {f"\x1b[31mkey {i:06}" + "x" * 99: i for i in range(100_000)}
    with pytest.raises(
        ValueError, match=r"\('\\x1b\[31mkey 00000\.\.\.x+', .* and 99,997 more\); known"
    ) as caught:
        read(PARAMS_8B | many)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "norm_eps"])
def test_a_missing_key_is_refused(key):
    for values in ({name: value for name, value in PARAMS_8B.items() if name != key}, PARAMS_8B | {key: None}):
        with pytest.raises(ValueError, match=rf"the params.json given as text lacks {key}: "):
            read(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_layers": "32"}, "sets n_layers to '32', expected an integer"),
        ({"dim": [1]}, r"sets dim to \[1\], expected an integer"),
        ({"dim": "64" * 5000}, r"sets dim to '6464[0-9]+\.\.\.[0-9]+6464', expected an integer"),
        ({"norm_eps": "1e-5"}, "sets norm_eps to '1e-5', expected a number"),
        ({"rope_theta": None}, "sets rope_theta to null, expected a number"),
        ({"n_kv_heads": 8.5}, "sets n_kv_heads to 8.5, expected an integer"),
        ({"multiple_of": True}, "sets multiple_of to true, expected an integer"),
        ({"ffn_dim_multiplier": "1.3"}, "sets ffn_dim_multiplier to '1.3', expected a number"),
        ({"ffn_dim_multiplier": [1]}, r"sets ffn_dim_multiplier to \[1\], expected a number"),
        ({"use_scaled_rope": "false"}, "sets use_scaled_rope to 'false', expected true or false"),
        ({"use_scaled_rope": []}, r"sets use_scaled_rope to \[\], expected true or false"),
        ({"use_scaled_rope": 0}, "sets use_scaled_rope to 0, expected true or false"),
        ({"use_scaled_rope": None}, "sets use_scaled_rope to null, expected true or false"),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_a_wrong_type_is_refused(change, words):
    with pytest.raises(TypeError, match=None if TYPED else f"the params.json given as text {words}"):
        read(PARAMS_8B | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"multiple_of": 0}, "sets multiple_of to 0, expected an integer of at least 1 and at most 268,435,456"),
        ({"multiple_of": -1}, "sets multiple_of to -1, expected an integer of at least 1"),
        ({"ffn_dim_multiplier": float("inf")}, "sets 'ffn_dim_multiplier' to inf, or to a number too large"),
        ({"ffn_dim_multiplier": float("nan")}, "sets 'ffn_dim_multiplier' to nan"),
        (
            {"ffn_dim_multiplier": 1e300},
            "sets ffn_dim_multiplier to 1e.300, expected a number of at least 0.001 and at most 1,000",
        ),
        ({"ffn_dim_multiplier": 0}, "sets ffn_dim_multiplier to 0, expected a number of"),
        ({"rope_theta": 10**30}, "sets rope_theta to 10000.*, expected a number of at least 1 and at most 1,000,"),
        ({"norm_eps": 10**30}, "sets norm_eps to 10000.*, expected a number of at least 1e-20 and at most 1"),
        ({"dim": 2**70}, "sets dim to 11805.*, expected an integer of at least 1 and at most 268,435,456"),
        ({"vocab_size": 2**62}, "sets vocab_size to 46116.*, expected an integer"),
        ({"vocab_size": -2}, "sets vocab_size to -2, expected an integer of at least -1"),
        ({"n_layers": 10**9}, "sets n_layers to 1000000000, expected an integer of at least 1 and at most 10,000"),
        ({"n_kv_heads": 0}, "sets n_kv_heads to 0, expected an integer of at least 1"),
        ({"n_kv_heads": 5}, ": n_heads 32 is not divisible by n_kv_heads 5"),
        ({"dim": 4095}, ": dim 4095 is not divisible by n_heads 32"),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_a_wrong_value_is_refused(change, words):
    """Before anything is computed from it, and with the name of the file."""
    with pytest.raises(ValueError, match=f"the params.json given as text ?{words}"):
        read(PARAMS_8B | change)


def test_files_are_read_by_path_by_directory_and_as_text(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(PARAMS_8B))
    for source in (tmp_path, str(tmp_path), tmp_path / "params.json", f"\n {json.dumps(PARAMS_8B)}"):
        assert dl.LlamaConfig.from_params_json(source) == preset("llama3-8b")
