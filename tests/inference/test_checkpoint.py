"""Checkpoints of both kinds, whole and in parts; and every way they can be wrong."""

import json
import os

import pytest
import torch
from conftest import randomize, shrink
from safetensors.torch import load_file, save_file
from torch import Tensor

import decoding_llama3 as dl
from decoding_llama3.inference import checkpoint
from decoding_llama3.inference.checkpoint import save_huggingface

PARAMS = {
    "dim": 192,
    "n_layers": 2,
    "n_heads": 12,
    "n_kv_heads": 3,
    "vocab_size": 320,
    "multiple_of": 16,
    "ffn_dim_multiplier": 0.3,
    "norm_eps": 1e-5,
    "rope_theta": 500_000.0,
}
META_NAMES = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}
TOKENS = torch.arange(2 * 23).view(2, 23)


def load(path, **options) -> dl.Transformer:
    return dl.load_model(path, dtype=torch.float32, **options)


@pytest.fixture
def huggingface(model, tmp_path):
    save_huggingface(model, tmp_path)
    return tmp_path


@pytest.fixture
def meta_model() -> dl.Transformer:
    return randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(PARAMS))))


def save_meta(model: dl.Transformer, path, parts: int = 1, embedding_axis: int = 0, params: dict | None = None):
    """As Meta's trainer leaves it: every matrix cut along the axis that its parallel layer splits."""
    (path / "params.json").write_text(json.dumps(params or PARAMS))
    axes = {"wq": 0, "wk": 0, "wv": 0, "w_gate": 0, "w_up": 0, "output": 0, "wo": 1, "w_down": 1}
    axes["tok_embeddings"] = embedding_axis  # 1 in Llama 2, 0 in Llama 3
    for i in range(parts):
        part = {}
        for name, weight in model.state_dict().items():
            stem = name.split(".")[-2]
            slices = weight.chunk(parts, dim=axes[stem]) if stem in axes else [weight] * parts
            part[name.replace(stem, META_NAMES.get(stem, stem))] = slices[i].clone()
        part["rope.freqs"] = torch.ones(8)  # Meta's files carry the table along
        torch.save(part, path / f"consolidated.{i:02d}.pth")


def edit_weights(path, change) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors")


def edit_json(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_saved_is_what_loads(model, huggingface):
    assert load(huggingface).config == model.config
    assert torch.equal(load(huggingface)(TOKENS), model(TOKENS))


@pytest.mark.parametrize(("parts", "embedding_axis"), [(1, 0), (2, 0), (2, 1), (4, 1)])
def test_metas_parts_are_joined_along_the_axis_they_were_cut(meta_model, tmp_path, parts, embedding_axis):
    save_meta(meta_model, tmp_path, parts, embedding_axis)
    assert torch.equal(load(tmp_path)(TOKENS), meta_model(TOKENS))


def test_a_llama_2_file_without_its_vocabulary_size(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2, params=PARAMS | {"vocab_size": -1})
    assert load(tmp_path).config.vocab_size == 320


def test_the_layouts_of_both_kinds_differ_in_queries_and_keys_alone(meta_model, tmp_path):
    save_huggingface(meta_model, tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = meta_model.state_dict()
    for layer in range(2):
        for mine, name in (("wq", "q_proj"), ("wk", "k_proj"), ("wv", "v_proj"), ("wo", "o_proj")):
            same = torch.equal(
                ours[f"layers.{layer}.attention.{mine}.weight"],
                theirs[f"model.layers.{layer}.self_attn.{name}.weight"],
            )
            assert same == (mine in ("wv", "wo"))


def test_without_dtype_the_choice_is_printed(huggingface, capsys):
    model = dl.load_model(huggingface)
    assert capsys.readouterr().out == f"{huggingface}: float32 on cpu\n"
    assert model.norm.weight.dtype == torch.float32
    assert dl.load_model(huggingface, dtype=torch.bfloat16).norm.weight.dtype == torch.bfloat16
    assert capsys.readouterr().out == ""


def test_tied_weights_stay_one_tensor(tmp_path):
    """load_state_dict(assign=True) alone makes two parameters of one tensor, and the model grows on `.to()`."""
    config = shrink("llama3.2-1b")
    save_huggingface(randomize(dl.Transformer(config)), tmp_path)
    model = load(tmp_path)
    assert model.output.weight is model.tok_embeddings.weight
    assert sum(p.numel() for p in model.parameters()) == config.n_params
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_a_tied_checkpoint_may_repeat_its_embedding_but_not_contradict_it(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3.2-1b"))), tmp_path)
    edit_weights(tmp_path, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    load(tmp_path)
    edit_weights(tmp_path, lambda w: w["lm_head.weight"].mul_(2))
    with pytest.raises(ValueError, match=r"holds a lm_head\.weight that differs from the embedding"):
        load(tmp_path)


def drop_norm(weights: dict[str, Tensor]) -> None:
    del weights["model.norm.weight"]


def add_bias(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(192)


def cut_a_row(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()


def store_integers(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.int8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_norm, r"lacks model\.norm\.weight: are configuration"),
        (add_bias, r"has, beyond .*, model\.layers\.0\.self_attn\.q_proj\.bias"),
        (cut_a_row, r"lm_head\.weight of shape \(319, 192\), but its configuration asks for \(320, 192\)"),
        (store_integers, r"lm_head\.weight as torch\.int8: quantised weights are not supported"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_weights_are_refused(huggingface, change, words):
    edit_weights(huggingface, change)
    with pytest.raises(ValueError, match=words):
        load(huggingface)


def test_a_configuration_of_another_model_is_refused(huggingface):
    edit_json(huggingface / "config.json", num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"lacks model\.layers\.2.* and 8 more"):
        load(huggingface)


def test_a_setting_we_do_not_implement_is_refused(huggingface):
    edit_json(huggingface / "config.json", attention_bias=True)
    with pytest.raises(ValueError, match=r"config\.json sets attention_bias to true"):
        load(huggingface)


def test_a_missing_shard_is_named(huggingface):
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (huggingface / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"lacks model-00002-of-00002\.safetensors"):
        load(huggingface)


@pytest.mark.parametrize("index", ["not json", "{}"])
def test_a_damaged_index_is_named(huggingface, index):
    (huggingface / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        load(huggingface)


def test_a_download_cut_short_is_named(huggingface):
    file = huggingface / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .* download it again"):
        load(huggingface)


def test_a_gap_among_metas_parts_is_told(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=4)
    (tmp_path / "consolidated.02.pth").unlink()
    with pytest.raises(ValueError, match=r"without a gap, found consolidated\.00\.pth, .*01\.pth, .*03\.pth"):
        load(tmp_path)


def test_a_missing_last_part_is_told_by_the_shapes(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    (tmp_path / "consolidated.01.pth").unlink()
    with pytest.raises(ValueError, match="all parts there"):
        load(tmp_path)


def test_parts_of_two_checkpoints_are_told(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    torch.save({"norm.weight": torch.ones(192)}, tmp_path / "consolidated.01.pth")
    with pytest.raises(ValueError, match="are they parts of one checkpoint"):
        load(tmp_path)


class Trap:
    """Unpickled, it makes a file; a pickle can run any command."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pth_file_never_runs_code(meta_model, tmp_path):
    save_meta(meta_model, tmp_path)
    torch.save({"norm.weight": Trap(tmp_path / "sprung")}, tmp_path / "consolidated.00.pth")
    with pytest.raises(ValueError, match="cannot be read as plain weights"):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_pth_file_of_something_else_is_told(meta_model, tmp_path):
    save_meta(meta_model, tmp_path)
    torch.save({"step": 3}, tmp_path / "consolidated.00.pth")
    with pytest.raises(ValueError, match="a dictionary of tensors by name"):
        load(tmp_path)


def test_a_place_without_a_checkpoint_is_told(tmp_path):
    with pytest.raises(ValueError, match="no directory"):
        dl.load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"neither config\.json .* nor params\.json"):
        dl.load_model(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    with pytest.raises(ValueError, match=r"should hold consolidated\.00\.pth.* found none"):
        dl.load_model(tmp_path, dtype=torch.float32)


def test_an_unknown_quantisation_is_told(huggingface):
    with pytest.raises(ValueError, match="quantize is None or 'int8', found 'int3'"):
        load(huggingface, quantize="int3")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself
def test_compiled_and_eager_choose_the_same_tokens(huggingface):
    prompt = TOKENS[0].tolist()
    eager = list(dl.generate(load(huggingface), prompt, max_new_tokens=20))
    compiled = load(huggingface, compile=True)
    assert compiled._compiled_call_impl is not None
    assert list(dl.generate(compiled, prompt, max_new_tokens=20)) == eager


def test_without_a_compiler_the_model_stays_eager_and_says_so(huggingface, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "find_compiler", lambda: None)
    model = load(huggingface, compile=True)
    assert "no C++ compiler found" in capsys.readouterr().out
    assert model._compiled_call_impl is None
