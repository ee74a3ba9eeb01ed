"""The other oracle: Meta's reference model, from its package llama-models, one process over gloo."""

import dataclasses
import json

import pytest
import torch
from conftest import randomize, relative_difference, shrink
from fairscale.nn.model_parallel.initialize import destroy_model_parallel, initialize_model_parallel
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_models.llama3 import model as meta
from llama_models.llama3.args import ModelArgs

import decoding_llama3 as dl

SCALED = ["llama3.1-8b", "llama3.3-70b"]  # by 8: their code has no other factor, see the last test
MODELS = ["llama2-7b", "llama2-70b", "llama3-8b", "mistral-7b-v0.3", *SCALED]


@pytest.fixture(autouse=True, scope="module")
def _one_process(tmp_path_factory):
    store = tmp_path_factory.mktemp("gloo") / "store"
    torch.distributed.init_process_group("gloo", init_method=store.as_uri(), rank=0, world_size=1)
    initialize_model_parallel(1)
    yield
    destroy_model_parallel()
    torch.distributed.destroy_process_group()


def params(config: dl.LlamaConfig) -> dict:
    """What their params.json says; rounding 2/3 of 4 dim, shrunk a lot, up to hidden_dim gives hidden_dim."""
    same = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta")
    return {name: getattr(config, name) for name in same} | {
        "multiple_of": config.hidden_dim,
        "ffn_dim_multiplier": 0.1,
        "use_scaled_rope": config.rope_scaling is not None,
    }


def reference(config: dl.LlamaConfig) -> meta.Transformer:
    return randomize(meta.Transformer(ModelArgs(**params(config), max_batch_size=2, max_seq_len=6500)))


@pytest.fixture(params=MODELS)
def pair(request, tmp_path, monkeypatch):
    """Their model and ours, read from the files that theirs is saved to.

    params.json do not state the factor of scaled RoPE: the preset of the same widths does.
    """
    config = shrink(request.param)
    monkeypatch.setitem(dl.PRESETS, "shrunk", dataclasses.asdict(config))
    theirs = reference(config)
    torch.save(theirs.state_dict(), tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text(json.dumps(params(config)))
    ours = dl.load_model(tmp_path, dtype=torch.float32)
    assert ours.config.rope_scaling == config.rope_scaling
    return ours, theirs


@torch.inference_mode()
def at(positions, ours, theirs, seed=0):
    """Logits of both, the positions of theirs being picked from the table they made at the start."""
    tokens = torch.randint(
        ours.config.vocab_size, (2, len(positions)), generator=torch.Generator().manual_seed(seed)
    )
    table, theirs.freqs_cis = theirs.freqs_cis, theirs.freqs_cis[positions]
    expected = theirs(tokens, 0)
    theirs.freqs_cis = table
    return ours(tokens, positions), expected


def test_logits_equal(pair):
    assert relative_difference(*at(torch.arange(23), *pair)) < 1e-5


@pytest.mark.parametrize("step", [1, 173])
def test_logits_equal_past_position_8192(pair, step):
    assert relative_difference(*at(9000 + step * torch.arange(23), *pair)) < 2e-5


@torch.inference_mode()
def test_cached_steps_equal(pair):
    """Their start_pos is the number of tokens in the cache: a prompt, a second chunk, then token by token."""
    ours, theirs = pair
    tokens = torch.randint(ours.config.vocab_size, (2, 40))
    caches = ours.make_caches(2, 45)
    for start, end in [(0, 17), (17, 29), *((i, i + 1) for i in range(29, 40))]:
        expected = theirs(tokens[:, start:end], start)
        found = ours(tokens[:, start:end], torch.arange(start, end), caches)
        assert relative_difference(found, expected) < 1e-5, start
        assert relative_difference(ours(tokens[:, :end])[:, start:], expected) < 1e-5, start


def test_names_exchanged_are_seen(tmp_path):
    """Meta's w1, w2, w3 are gate, down, up: w1 and w3 exchanged load and run without an error."""
    config = shrink("llama3-8b")
    theirs = reference(config)
    swap = {"w1": "w3", "w3": "w1"}
    state = {
        ".".join(swap.get(part, part) for part in name.split(".")): w for name, w in theirs.state_dict().items()
    }
    torch.save(state, tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text(json.dumps(params(config)))
    ours = dl.load_model(tmp_path, dtype=torch.float32)
    assert relative_difference(*at(torch.arange(23), ours, theirs)) > 1e-2


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_rotations_equal(head_dim, theta):
    """To 1e-6 at every position of 16,384: both compute the same float32 angles."""
    freqs = dl.rope_frequencies(head_dim, theta)
    for scaling in (None, dl.RopeScaling(factor=8.0)):
        ours = dl.rope_rotation(
            freqs if scaling is None else dl.scale_frequencies(freqs, scaling), torch.arange(16_384)
        )
        theirs = torch.view_as_real(meta.precompute_freqs_cis(head_dim, 16_384, theta, scaling is not None))
        if scaling is None:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        else:  # blended in another order: one ulp of a frequency, at most 1e-7 * 16,384 rad
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


@given(dim=st.integers(1, 20_000), multiple_of=st.integers(1, 4096), multiplier=st.none() | st.floats(0.1, 4))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_feed_forward_widths_equal(dim, multiple_of, multiplier):
    """Catches %, rounding down or to the closest, and a product that is not cut to a whole number in between."""
    with torch.device("meta"):
        theirs = meta.FeedForward(dim, 4 * dim, multiple_of, multiplier)
    assert dl.ffn_hidden_dim(dim, multiple_of, multiplier) == theirs.w1.weight.shape[0]


def test_their_factor_is_8_where_the_3_2_models_need_32():
    """Their code scales every model by 8. Ours equals it at 8, and is meant to differ at 32."""
    config = shrink("llama3.2-1b")
    assert config.rope_scaling.factor == 32
    by_8 = dataclasses.replace(config, rope_scaling=dataclasses.replace(config.rope_scaling, factor=8.0))
    ours_by_32, ours_by_8 = (randomize(dl.Transformer(c)) for c in (config, by_8))
    theirs = reference(config)
    names = {"w1": "w_gate", "w2": "w_down", "w3": "w_up"}
    state = ours_by_8.state_dict()
    theirs.load_state_dict(
        {name: state[".".join(names.get(part, part) for part in name.split("."))] for name in theirs.state_dict()}
    )
    positions = 9000 + 173 * torch.arange(23)
    assert relative_difference(*at(positions, ours_by_8, theirs)) < 2e-5
    assert relative_difference(*at(positions, ours_by_32, theirs)) > 1e-2
