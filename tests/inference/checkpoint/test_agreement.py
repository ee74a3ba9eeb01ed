"""Configuration and tensors of one model: what is missing, too much, of another shape, or called otherwise."""

import time

import pytest
import torch
from conftest import randomize, shrink
from folders import edit_json, edit_weights, load
from safetensors.torch import load_file, save_file
from torch import Tensor

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface


@pytest.fixture
def huggingface(model, tmp_path):
    save_huggingface(model, tmp_path)
    return tmp_path


def test_a_tied_checkpoint_may_repeat_its_embedding_but_not_contradict_it(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3.2-1b"))), tmp_path)
    edit_weights(tmp_path, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    load(tmp_path)
    edit_weights(tmp_path, lambda w: w["lm_head.weight"].mul_(2))
    with pytest.raises(ValueError, match=r"holds a 'lm_head\.weight' that differs from the embedding"):
        load(tmp_path)


def test_a_tied_output_that_differs_below_the_precision_of_the_embedding_is_refused(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3.2-1b"))), tmp_path, torch.bfloat16)
    edit_weights(tmp_path, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].float() * 1.0001}))
    with pytest.raises(ValueError, match="differs from the embedding"):
        load(tmp_path)


def test_a_checkpoint_without_output_that_is_not_tied_is_refused_with_the_setting_to_check(huggingface):
    edit_weights(huggingface, lambda w: w.pop("lm_head.weight"))
    with pytest.raises(ValueError, match=r"lacks 'lm_head\.weight': .*tie_word_embeddings"):
        load(huggingface)


def drop_norm(weights: dict[str, Tensor]) -> None:
    del weights["model.norm.weight"]


def add_bias(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(192)


def use_our_name(weights: dict[str, Tensor]) -> None:
    weights["norm.weight"] = weights.pop("model.norm.weight")


def cut_a_row(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()


def lose_an_axis(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_proj.weight"] = torch.tensor(1.0)


def grow_axes(weights: dict[str, Tensor]) -> None:
    weights["model.norm.weight"] = torch.ones(192).view(192, *[1] * 63)


def store_integers(weights: dict[str, Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.int8)


def write_an_escape_code(weights: dict[str, Tensor]) -> None:
    weights["\x1b[31mred\x1b]0;title"] = torch.ones(1)


def write_a_long_name(weights: dict[str, Tensor]) -> None:
    weights["x" * 10_000] = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_norm, r"lacks 'model\.norm\.weight': are configuration"),
        (add_bias, r"has, beyond .*, 'model\.layers\.0\.self_attn\.q_proj\.bias'"),
        (use_our_name, r"lacks 'model\.norm\.weight' and has, beyond .*, 'norm\.weight'"),
        (cut_a_row, r"lm_head\.weight' of shape \(319, 192\), but its configuration asks for \(320, 192\)"),
        (lose_an_axis, r"q_proj\.weight' of shape \(\), but its configuration asks for \(192, 192\)"),
        (grow_axes, r"norm\.weight' of 64 axes, but its configuration asks for \(192,\)"),
        (store_integers, r"lm_head\.weight' as I8, and quantised weights are not supported"),
        (write_an_escape_code, r"has, beyond .*, '\\x1b\[31mred\\x1b\]0;title'"),
        (write_a_long_name, r"has, beyond .*, 'x+\.\.\.x+'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_weights_are_refused(huggingface, change, words):
    edit_weights(huggingface, change)
    with pytest.raises(ValueError, match=words) as caught:
        load(huggingface)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("n_layers", [1, 3, 10_000])
def test_another_number_of_layers_is_refused(huggingface, n_layers):
    edit_json(huggingface / "config.json", num_hidden_layers=n_layers)
    with pytest.raises(ValueError, match=f"has {n_layers:,} layers, but the weights have 2"):
        load(huggingface)


@pytest.mark.parametrize("rename", [lambda name: name, lambda name: f"elsewhere/{name}"])
def test_five_million_layers_are_refused_at_once(huggingface, rename):
    """Before a module is built, and likewise the 10,000 that a configuration may have at most."""
    edit_json(huggingface / "config.json", num_hidden_layers=5_000_000)
    weights = load_file(huggingface / "model.safetensors")
    save_file({rename(name): weight for name, weight in weights.items()}, huggingface / "model.safetensors")
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"at least 1 and at most 10,000|lacks 'model\.embed_tokens"):
        load(huggingface)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("size", [2**40, 2**62, 2**70])
@pytest.mark.parametrize("key", ["vocab_size", "intermediate_size"])
def test_sizes_that_no_tensor_has_are_refused(huggingface, key, size):
    """2**62 rows overflow torch's arithmetic, 2**70 its integers."""
    edit_json(huggingface / "config.json", **{key: size})
    with pytest.raises(ValueError, match=r"no computer holds a model|its configuration asks for|must be|at most"):
        load(huggingface)


@pytest.mark.parametrize(
    ("prefix", "remedy"),
    [
        ("base_model.model.", "merge the adapter into its base model"),
        ("_orig_mod.", r"not what torch\.compile made of it"),
        ("module.", r"save the model itself \(its \.module\)"),
        ("model.", "rename them"),
        ("language_model.", "rename them"),
    ],
)
def test_the_prefix_that_a_wrapper_leaves_is_shown_with_the_remedy(huggingface, prefix, remedy):
    weights = load_file(huggingface / "model.safetensors")
    save_file({prefix + name: weight for name, weight in weights.items()}, huggingface / "model.safetensors")
    with pytest.raises(ValueError, match=rf"holds '{prefix}.*' in place of .* begin with '{prefix}', .*{remedy}"):
        load(huggingface)


def test_a_setting_that_is_not_implemented_is_refused(huggingface):
    edit_json(huggingface / "config.json", attention_bias=True)
    with pytest.raises(ValueError, match=r"config\.json sets attention_bias to true"):
        load(huggingface)
