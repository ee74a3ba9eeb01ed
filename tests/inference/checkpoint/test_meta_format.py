"""Meta's parts: joined along the axis they were cut, and refused where they do not belong together."""

import json

import pytest
import torch
from conftest import randomize
from folders import PARAMS, TOKENS, edit_part, load, save_meta

import decoding_llama3 as dl
from decoding_llama3.inference.quantize import quantize_int8


@pytest.fixture
def meta_model() -> dl.Transformer:
    return randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(PARAMS))))


@pytest.mark.parametrize(("parts", "embedding_axis"), [(1, 0), (2, 0), (2, 1), (4, 1)])
def test_parts_are_joined_along_the_axis_they_were_cut(meta_model, tmp_path, parts, embedding_axis):
    save_meta(meta_model, tmp_path, parts, embedding_axis)
    assert torch.equal(load(tmp_path)(TOKENS), meta_model(TOKENS))


def test_a_llama_2_file_without_its_vocabulary_size(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2, params=PARAMS | {"vocab_size": -1})
    assert load(tmp_path).config.vocab_size == 320


def test_parts_are_quantised_as_they_are_read(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    assert torch.equal(load(tmp_path, quantize="int8")(TOKENS), quantize_int8(meta_model)(TOKENS))


def test_a_weight_that_was_saved_transposed_lies_row_by_row_in_memory(meta_model, tmp_path):
    """Kernels read a weight row by row; one that lies otherwise is as right, and slow."""
    save_meta(meta_model, tmp_path, parts=1)
    wo = meta_model.layers[1].attention.wo.weight
    edit_part(
        tmp_path, lambda weights: weights.update({"layers.1.attention.wo.weight": wo.data.t().contiguous().t()})
    )
    loaded = load(tmp_path).layers[1].attention.wo.weight
    assert torch.equal(loaded, wo)
    assert loaded.is_contiguous()


def test_a_gap_among_the_parts_is_named(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=4)
    (tmp_path / "consolidated.02.pth").unlink()
    with pytest.raises(ValueError, match=r"without a gap, found 'consolidated\.00\.pth', .*01\.pth', .*03\.pth'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("parts", "words"), [(2, "all parts there"), (4, r"the 3 parts of .* are all parts there")]
)
def test_a_missing_last_part_is_seen_by_the_shapes(meta_model, tmp_path, parts, words):
    save_meta(meta_model, tmp_path, parts)
    (tmp_path / f"consolidated.{parts - 1:02d}.pth").unlink()
    with pytest.raises(ValueError, match=words):
        load(tmp_path)


def test_parts_of_two_checkpoints_are_refused(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    torch.save({"norm.weight": torch.ones(192)}, tmp_path / "consolidated.01.pth")
    with pytest.raises(ValueError, match=r"not all parts hold '.*': are they parts of one checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["norm.weight", "layers.1.ffn_norm.weight"])
def test_a_tensor_that_parts_should_share_but_that_differs_is_refused(meta_model, tmp_path, name):
    """The first part's would be taken, and nothing be said."""
    save_meta(meta_model, tmp_path, parts=4)
    edit_part(tmp_path, lambda weights: weights[name].add_(1e-3), part=3)
    with pytest.raises(ValueError, match=rf"'{name}' .* differs between consolidated\.00\.pth and .*\.03\.pth"):
        load(tmp_path)


def test_shared_tensors_with_nan_are_the_same_in_all_parts(meta_model, tmp_path):
    save_meta(meta_model, tmp_path, parts=2)
    for part in (0, 1):
        edit_part(tmp_path, lambda weights: weights["norm.weight"].fill_(float("nan")), part)
    assert load(tmp_path).norm.weight.isnan().all()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("output.weight", lambda weight: weight[:-1].clone(), r"\(160, 192\) in torch\.float32, \(159, 192\)"),
        ("output.weight", lambda weight: torch.tensor(1.0), r"\(160, 192\) in torch\.float32, \(\) in"),
        ("norm.weight", lambda weight: weight[None].clone(), r"\(192,\) in torch\.float32, \(1, 192\)"),
        ("norm.weight", lambda weight: weight.bfloat16(), r"in torch\.float32, \(192,\) in torch\.bfloat16"),
    ],
    ids=["a row less", "no axis", "an axis more", "another dtype"],
)
def test_parts_of_other_shape_or_dtype_are_named(meta_model, tmp_path, name, change, words):
    save_meta(meta_model, tmp_path, parts=2)
    edit_part(tmp_path, lambda weights: weights.update({name: change(weights[name])}), part=1)
    with pytest.raises(ValueError, match=rf"the parts of '{name}' .* differ in shape or dtype .*{words}"):
        load(tmp_path)


@pytest.mark.parametrize("params", [PARAMS, PARAMS | {"vocab_size": -1}])
def test_an_output_without_rows_is_refused(meta_model, tmp_path, params):
    save_meta(meta_model, tmp_path, params=params)
    edit_part(tmp_path, lambda weights: weights.update({"output.weight": torch.tensor(1.0)}))
    with pytest.raises(ValueError, match=r"'output\.weight' of shape \(\)|vocab_size -1"):
        load(tmp_path)


def test_our_names_in_a_file_of_metas_are_not_taken_for_theirs(meta_model, tmp_path):
    save_meta(meta_model, tmp_path)
    ours = "layers.0.feed_forward.w_gate.weight"
    edit_part(tmp_path, lambda weights: weights.update({ours: weights.pop("layers.0.feed_forward.w1.weight")}))
    with pytest.raises(
        ValueError, match=r"lacks 'layers\.0\.feed_forward\.w1\.weight' and has, .*w_gate\.weight'"
    ):
        load(tmp_path)


def test_one_part_under_two_names_is_not_a_whole(meta_model, tmp_path):
    """Its shapes are right, and half of every matrix is missing."""
    save_meta(meta_model, tmp_path, parts=2)
    (tmp_path / "consolidated.01.pth").write_bytes((tmp_path / "consolidated.00.pth").read_bytes())
    words = r"has the same weights in consolidated\.00\.pth and consolidated\.01\.pth, which should be two parts"
    with pytest.raises(ValueError, match=words):
        load(tmp_path)


def test_parts_of_zeros_may_be_the_same(meta_model, tmp_path):
    meta_model.layers[0].attention.wo.weight.data.zero_()
    save_meta(meta_model, tmp_path, parts=2)
    assert torch.equal(load(tmp_path)(TOKENS), meta_model(TOKENS))
