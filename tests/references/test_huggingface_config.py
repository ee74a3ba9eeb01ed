"""What a config.json means is what transformers computes from it: logits of a small random model.

A configuration that is accepted here gives the logits of transformers; any other is refused.
"""

import json
import warnings
from random import Random

import pytest
import torch
from conftest import randomize, relative_difference
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig
from transformers.utils import logging

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface

SMALL = dl.LlamaConfig(
    dim=192, n_layers=2, n_heads=12, n_kv_heads=3, hidden_dim=176, vocab_size=320, max_seq_len=8192
)
NEAR, FAR = torch.arange(23), 8192 - 173 * torch.arange(23).flip(0) - 1
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
V4 = {"rope_theta": 5e5, "rope_scaling": None}
DELETED = object()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("small")
    save_huggingface(randomize(dl.Transformer(SMALL)), path)
    return path


@pytest.fixture(autouse=True)
def _quiet():
    """transformers logs settings that it ignores."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


def write(checkpoint, changes: dict) -> None:
    """Changes of config.json as `save_huggingface` leaves it; what is DELETED is not in the file."""
    file, original = checkpoint / "config.json", checkpoint / "original.json"
    if not original.exists():
        original.write_text(file.read_text())
    values = json.loads(original.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not DELETED}))


def difference(checkpoint, ours: dl.Transformer, positions: torch.Tensor) -> float:
    """Largest relative difference of our logits from those of transformers, of two rows of tokens."""
    tokens = torch.randint(SMALL.vocab_size, (2, len(positions)))
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        mask = torch.ones_like(tokens)  # else gaps in the positions are taken for borders of documents
        logits = theirs.eval()(tokens, position_ids=positions[None], attention_mask=mask).logits
        return relative_difference(ours(tokens, positions), logits)


@pytest.mark.parametrize(
    "changes",
    [
        V4,
        V4 | {"rope_theta": 1e4},
        V4 | {"rope_theta": DELETED},
        V4 | {"rope_scaling": LLAMA3},
        V4 | {"rope_scaling": LLAMA3 | {"type": "llama3"}},
        V4 | {"rope_scaling": LLAMA3 | {"factor": 32}},
        V4 | {"rope_scaling": {"type": "default"}},
        V4 | {"rope_scaling": LLAMA3, "original_max_position_embeddings": 512},
        {"rope_theta": DELETED, "rope_scaling": DELETED, "rope_parameters": {"rope_theta": 5e5}},
        {"rope_theta": DELETED, "rope_scaling": DELETED, "rope_parameters": LLAMA3 | {"rope_theta": 1e4}},
        {"rope_theta": 5e5, "rope_scaling": LLAMA3, "rope_parameters": LLAMA3},
        {"rope_theta": 5e5, "rope_scaling": DELETED, "rope_parameters": {"partial_rotary_factor": 1.0}},
        {"rms_norm_eps": 1e-2},
        {"rms_norm_eps": 1.0},
        {"head_dim": None, "num_key_value_heads": 3, "mlp_bias": False},
        {"hidden_act": "swish", "attention_dropout": 0.5, "pretraining_tp": 2, "initializer_range": 0.5},
        {"architectures": DELETED, "use_cache": False, "chunk_size_feed_forward": 8, "is_decoder": True},
        {"sliding_window": 16, "use_sliding_window": False, "max_window_layers": 1},
        {"layer_types": ["full_attention", "full_attention"]},
        {"unsloth_version": "2024.9", "temperature": 0.6, "top_p": 0.9, "auto_map": {"AutoConfig": "x.Y"}},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None},
        {"model_type": "mistral", "sliding_window": 8192},
        {"model_type": "mistral", "num_key_value_heads": 3, "sliding_window": None, "attention_bias": False},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_accepted_settings_give_the_logits_of_transformers(checkpoint, changes):
    write(checkpoint, changes)
    ours = dl.load_model(checkpoint, dtype=torch.float32)
    assert difference(checkpoint, ours, NEAR) < 1e-5
    assert difference(checkpoint, ours, FAR) < 2e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        V4 | {"rope_scaling": {"type": "linear", "factor": 4.0}},
        V4 | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}},
        V4 | {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        V4 | {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LLAMA3},
        V4 | {"rope_scaling": LLAMA3, "original_max_position_embeddings": 256},
        {"rope_theta": 5e5, "rope_scaling": DELETED, "rope_parameters": {"rope_theta": 1e3}},
        {"rope_theta": DELETED, "rope_scaling": LLAMA3, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_refused_settings_change_the_logits_of_transformers(checkpoint, changes):
    """The model that these settings were dropped from would answer, and wrongly."""
    write(checkpoint, {})
    plain = dl.load_model(checkpoint, dtype=torch.float32)
    write(checkpoint, changes)
    with pytest.raises(ValueError, match=r"config\.json"):
        dl.load_model(checkpoint, dtype=torch.float32)
    assert max(difference(checkpoint, plain, NEAR), difference(checkpoint, plain, FAR)) > 1e-3


def test_a_mistral_without_a_window_in_its_file_has_one_of_4096():
    """And eight key/value heads: these are the values that transformers fills in."""
    theirs = MistralConfig()
    values = json.loads(theirs.to_json_string())
    del values["sliding_window"], values["num_key_value_heads"]
    ours = dl.LlamaConfig.from_huggingface(json.dumps(values))
    assert (ours.max_seq_len, ours.n_kv_heads) == (theirs.sliding_window, theirs.num_key_value_heads) == (4096, 8)


@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig])
def test_every_key_that_transformers_writes_is_known(kind):
    """With the values of the class: none of them may be refused."""
    values = kind(rms_norm_eps=1e-5).to_dict() | {"model_type": kind.model_type, "architectures": None}
    assert dl.LlamaConfig.from_huggingface(json.dumps(values)).norm_eps == 1e-5


POOL = [
    {"hidden_act": "gelu"},
    {"hidden_act": "swish"},
    {"attention_dropout": 0.9},
    {"rms_norm_eps": 1e-3},
    {"rope_theta": 1e4},
    {"rope_theta": DELETED},
    {"rope_scaling": LLAMA3},
    {"rope_scaling": LLAMA3 | {"factor": 2.0}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_scaling": {"factor": 2.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    {"rope_scaling": {}},
    {"rope_scaling": DELETED},
    {"rope_parameters": LLAMA3},
    {"rope_parameters": LLAMA3 | {"rope_theta": 1e4}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 1e3}},
    {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    {"rope_parameters": {"full_attention": LLAMA3}},
    {"partial_rotary_factor": 0.5},
    {"partial_rotary_factor": 1.0},
    {"original_max_position_embeddings": 300},
    {"original_max_position_embeddings": 512},
    {"model_type": "mistral"},
    {"sliding_window": 4},
    {"sliding_window": 9000},
    {"use_sliding_window": False},
    {"layer_types": ["full_attention", "sliding_attention"]},
    {"max_position_embeddings": 64},
    {"head_dim": 32},
    {"head_dim": DELETED},
    {"num_key_value_heads": 3},
    {"pretraining_tp": 4},
    {"per_layer_config": {"0": {"sliding_window": 2}}},
    {"logits_scaling": 4.0},
]


def test_any_mixture_of_settings_is_refused_or_gives_the_logits_of_transformers(checkpoint):
    """Catches a setting dropped, and one of two places for a setting that wins here and loses there."""
    accepted = 0
    for seed in range(100):
        draw, changes = Random(seed), {}
        for change in draw.sample(POOL, draw.randint(1, 4)):
            changes |= change
        write(checkpoint, changes)
        try:
            ours = dl.load_model(checkpoint, dtype=torch.float32)
        except ValueError:
            continue
        positions = NEAR if ours.config.max_seq_len < 8192 else FAR
        positions = positions[: ours.config.max_seq_len]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert difference(checkpoint, ours, positions) < 2e-5, changes
        accepted += 1
    assert accepted > 20
