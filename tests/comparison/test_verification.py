"""Equal is what is equal, in each format; a fault put into our model is found in the layer where it was put."""

import dataclasses
import gc
import itertools
import json

import gguf
import pytest
import torch
from conftest import randomize, shrink

import decoding_llama3 as dl
from decoding_llama3.comparison import verification
from decoding_llama3.comparison.prompt import default_ids
from decoding_llama3.comparison.reading import far_positions
from decoding_llama3.inference.checkpoint.export import save_huggingface

IDS = [5, 17, 300, 2, 2, 41, 7, 250, 113, 64, 9, 31]
WIDTHS = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta")
META_NAMES = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}
GGUF_NAMES = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "w_gate": "ffn_gate",
    "w_up": "ffn_up",
    "w_down": "ffn_down",
}


@pytest.fixture(autouse=True)
def _one_thread(_deterministic):
    """A second one only gets in the way of matrices so small."""
    torch.set_num_threads(1)


def make(path, name: str = "llama3.1-8b", **changes) -> dl.Transformer:
    """A small checkpoint of three layers in Hugging Face's format."""
    model = randomize(dl.Transformer(dataclasses.replace(shrink(name), n_layers=3, **changes)))
    save_huggingface(model, path)
    return model


def make_gguf(path, kind: str = "F32", divisors=None, **changes) -> dl.Transformer:
    """A small GGUF file, written by the library."""
    config = dataclasses.replace(
        shrink("llama3-8b"), dim=256, hidden_dim=512, n_heads=8, n_kv_heads=2, head_dim=64
    )
    model = randomize(dl.Transformer(dataclasses.replace(config, **changes)))
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    for name, weight in model.state_dict().items():
        if name == "output.weight" and config.tie_embeddings:
            continue
        *block, what, _ = name.split(".")
        stored = f"blk.{block[1]}.{GGUF_NAMES[what]}.weight" if block else f"{GGUF_NAMES[what]}.weight"
        type_ = gguf.GGMLQuantizationType[kind if weight.dim() == 2 else "F32"]
        writer.add_tensor(stored, gguf.quants.quantize(weight.numpy(), type_), raw_dtype=type_)
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", divisors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def make_meta(path, name: str = "llama3-8b", parts: int = 1, **changes) -> dl.Transformer:
    """A small checkpoint in Meta's layout, in as many parts."""
    config = dataclasses.replace(shrink(name), **changes)
    model = randomize(dl.Transformer(config))
    params = {key: getattr(config, key) for key in WIDTHS} | {"multiple_of": 176, "ffn_dim_multiplier": 0.1}
    (path / "params.json").write_text(json.dumps(params | {"use_scaled_rope": config.rope_scaling is not None}))
    axes = {
        "wq": 0,
        "wk": 0,
        "wv": 0,
        "w_gate": 0,
        "w_up": 0,
        "output": 0,
        "tok_embeddings": 0,
        "wo": 1,
        "w_down": 1,
    }
    for i in range(parts):
        part = {}
        for key, weight in model.state_dict().items():
            stem = key.split(".")[-2]
            piece = weight.chunk(parts, dim=axes[stem])[i] if stem in axes else weight
            part[key.replace(stem, META_NAMES.get(stem, stem))] = piece.clone()
        torch.save(part, path / f"consolidated.{i:02d}.pth")
    return model


def found(path, n_new: int = 12, dtype: torch.dtype = torch.float32) -> verification.Verification:
    return verification.verify_checkpoint(path, IDS, n_new, "cpu", dtype)


def test_every_family_is_equal(shrunk, tmp_path):
    save_huggingface(randomize(dl.Transformer(shrunk)), tmp_path)
    result = found(tmp_path)
    assert result.is_equal
    assert [d.place for d in result.differences][-5:] == [
        "1.attention",
        "1.feed_forward",
        "norm",
        "logits",
        "far logits",
    ]
    assert (result.n_equal, result.n_new) == (12, 12)
    assert 0 < max(d.relative for d in result.differences) < 2e-5


def eps_of_one_norm(model):
    model.layers[1].ffn_norm.eps = 0.01


def theta(model):
    model.config = dataclasses.replace(model.config, rope_theta=1e4)


def layers_swapped(model):
    model.layers[1], model.layers[2] = model.layers[2], model.layers[1]


def scaling_dropped(model):
    model.config = dataclasses.replace(model.config, rope_scaling=None)


def one_weight(model):
    weight = model.layers[2].attention.wo.weight.clone()
    weight[3, 4] += 1
    model.layers[2].attention.wo.weight = torch.nn.Parameter(weight)


def last_norm(model):
    model.norm.eps = 0.01


def output(model):
    model.output.weight = torch.nn.Parameter(model.output.weight * 1.001)


FAULTS = {
    eps_of_one_norm: "1.feed_forward",
    theta: "0.attention",
    layers_swapped: "1.attention",
    scaling_dropped: "0.attention",
    one_weight: "2.attention",
    last_norm: "norm",
    output: "logits",
}


def with_fault(monkeypatch, change):
    load = verification.load_model

    def faulty(*args):
        model = load(*args)
        change(model)
        return model

    monkeypatch.setattr(verification, "load_model", faulty)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_where_it_is(fault, tmp_path, monkeypatch):
    make(tmp_path)
    with_fault(monkeypatch, fault)
    result = found(tmp_path)
    assert not result.is_equal
    assert result.first.place == FAULTS[fault]


def test_a_fault_of_the_cache_shows_in_the_tokens_alone(tmp_path, monkeypatch):
    make(tmp_path)
    update = dl.KVCache.update

    def wrong(self, positions, keys, values):
        return update(self, positions, keys, values if len(positions) > 1 else -values)

    monkeypatch.setattr(dl.KVCache, "update", wrong)
    result = found(tmp_path)
    assert result.first is None
    assert not result.tokens_agree
    assert not result.is_equal
    assert 0 < result.n_equal < 12


def test_tokens_between_which_rounding_decides_are_no_fault(tmp_path, monkeypatch):
    """Two tokens with one row of the output between them have equal logits, and either may be chosen."""
    model = make(tmp_path)
    ours, theirs = (verification.read_prompt(verification.runner_of(model), IDS, 5, 64) for _ in range(2))
    theirs.new[3] = (theirs.new[3] + 1) % 320
    how = model.config, torch.float32, verification.Oracle("itself", "torch")
    assert not verification.compare_readings(*how, ours, theirs).is_equal
    ours.leads[3] = 1e-6
    result = verification.compare_readings(*how, ours, theirs)
    assert (result.n_equal, result.is_tie, result.is_equal) == (3, True, True)


def test_numbers_that_are_not_finite_are_a_difference():
    nan = torch.full((2, 3), torch.nan)
    apart = verification.distance("logits", nan, torch.ones(2, 3))
    assert not apart.relative <= 1e9


def test_bfloat16_passes_with_its_own_tolerance_and_a_fault_does_not(tmp_path, monkeypatch):
    make(tmp_path)
    result = found(tmp_path, dtype=torch.bfloat16)
    assert result.is_equal
    assert max(d.relative for d in result.differences) > verification.TOLERANCES[torch.float32]
    with_fault(monkeypatch, layers_swapped)
    assert found(tmp_path, dtype=torch.bfloat16).first.place == "1.attention"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("F32", {}), ("Q8_0", {"tie_embeddings": True}), ("Q4_0", {"norm_eps": 1e-6, "rope_theta": 1e4})],
)
def test_a_gguf_file_is_equal(kind, changes, tmp_path):
    make_gguf(tmp_path / "model.gguf", kind, **changes)
    result = found(tmp_path / "model.gguf")
    assert result.is_equal, result.first
    assert "gguf" in result.oracle.name


def test_a_gguf_file_with_scaled_rope_is_equal_and_the_scaling_missed_is_found(tmp_path, monkeypatch):
    path, scaling = tmp_path / "model.gguf", dl.RopeScaling(factor=8.0)
    plain = dl.rope_frequencies(64, 500_000.0)
    make_gguf(path, divisors=plain / dl.scale_frequencies(plain, scaling))
    assert dl.load_model(path).config.rope_scaling == scaling
    assert found(path).is_equal
    with_fault(monkeypatch, scaling_dropped)
    assert found(path).first.place == "0.attention"


def test_rows_in_another_order_are_found_in_a_gguf_file(tmp_path, monkeypatch):
    make_gguf(tmp_path / "model.gguf")

    def unpermuted(model):
        weight = model.layers[1].attention.wk.weight
        rows = weight.view(-1, 2, 32, 256).transpose(1, 2).reshape(weight.shape)
        model.layers[1].attention.wk.weight = torch.nn.Parameter(rows)

    with_fault(monkeypatch, unpermuted)
    assert found(tmp_path / "model.gguf").first.place == "1.attention"


@pytest.mark.parametrize(("name", "parts"), [("llama3-8b", 1), ("llama2-7b", 2), ("llama3.1-8b", 1)])
def test_metas_layout_is_compared_with_metas_own_model(name, parts, tmp_path, monkeypatch):
    config = make_meta(tmp_path, name, parts).config
    monkeypatch.setitem(dl.PRESETS, "shrunk", dataclasses.asdict(config))  # params.json states no factor
    result = found(tmp_path)
    assert result.oracle.package == "llama-models"
    assert result.oracle.blind is None
    assert result.is_equal, result.first


def test_llama_2_states_no_theta_and_metas_model_gets_that_of_llama_2(tmp_path):
    make_meta(tmp_path, "llama2-7b")
    params = json.loads((tmp_path / "params.json").read_text())
    del params["rope_theta"]
    (tmp_path / "params.json").write_text(json.dumps(params))
    assert found(tmp_path).is_equal


def test_what_metas_code_cannot_tell_of_3_2_is_said(tmp_path, monkeypatch):
    config = make_meta(tmp_path, "llama3.2-1b").config
    monkeypatch.setitem(dl.PRESETS, "shrunk", dataclasses.asdict(config))
    result = found(tmp_path)
    assert result.is_equal
    assert "scales RoPE by 8 whatever the model" in result.oracle.blind


def test_rows_in_another_order_are_found_in_metas_layout(tmp_path, monkeypatch):
    make_meta(tmp_path)

    def unpermuted(model):
        weight = model.layers[1].attention.wq.weight
        rows = weight.view(-1, 2, 8, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        model.layers[1].attention.wq.weight = torch.nn.Parameter(rows)

    with_fault(monkeypatch, unpermuted)
    assert found(tmp_path).first.place == "1.attention"


def test_without_fairscale_metas_layout_says_what_was_not_compared(tmp_path, monkeypatch):
    make_meta(tmp_path)
    monkeypatch.setattr(verification, "missing_for_meta", lambda: "fairscale")
    result = found(tmp_path)
    assert result.is_equal
    assert result.oracle.package == "transformers"
    assert "the order of rows in wq and wk were read by this package on both sides" in result.oracle.blind
    assert "fairscale" in result.oracle.blind


def test_our_model_is_gone_when_the_other_comes(tmp_path, monkeypatch):
    make(tmp_path)
    gc.collect()
    read, alive = verification.read_directory, []
    before = {id(each) for each in gc.get_objects() if type(each) is dl.Transformer}  # of other tests

    def reading(*args):
        models = (each for each in gc.get_objects() if type(each) is dl.Transformer)
        alive.extend(model for model in models if id(model) not in before)
        return read(*args)

    monkeypatch.setattr(verification, "read_directory", reading)
    found(tmp_path)
    assert alive == []


def test_float32_if_it_fits_else_bfloat16(monkeypatch):
    config = shrink("llama3-8b")
    needed = verification.needed_bytes(config, torch.float32)
    for free, dtype in ((needed, torch.float32), (needed - 1, torch.bfloat16)):
        monkeypatch.setattr(verification, "free_bytes", lambda device, free=free: free)
        assert verification.choose_verify_dtype(config, "cpu") == dtype


@pytest.mark.parametrize(("n", "context"), [(1, 1), (1, 9), (3, 4), (24, 64), (24, 512), (31, 131_072)])
def test_far_positions_rise_and_lie_in_the_context(n, context):
    positions = far_positions(n, context).tolist()
    assert len(positions) == n
    assert 0 <= positions[0] <= positions[-1] == context - 1
    assert all(a < b for a, b in itertools.pairwise(positions))


def test_a_checkpoint_without_tokenizer_is_compared_on_ids_at_random(tmp_path):
    config = make(tmp_path).config
    ids, what = default_ids(config, tmp_path)
    assert len(set(ids)) > 12
    assert max(ids) < 320
    assert "ids at random, because" in what
    assert default_ids(config, tmp_path)[0] == ids
