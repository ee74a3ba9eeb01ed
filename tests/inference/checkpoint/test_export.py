"""What is saved is what was loaded: weights, configuration, ties; and nothing half, made up or left over."""

import dataclasses
import json
import os
import stat
import subprocess
import sys

import pytest
import torch
from conftest import randomize, relative_difference, shrink
from folders import PARAMS, TOKENS, into_shards, load, save_meta
from safetensors import SafetensorError
from safetensors.torch import load_file

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint import export
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.quantize import quantize_int8


def same_weights(ours: dl.Transformer, theirs: dl.Transformer) -> bool:
    ours, theirs = ours.state_dict(), theirs.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_preset_comes_back_as_it_was_saved(shrunk, tmp_path):
    model = randomize(dl.Transformer(shrunk))
    save_huggingface(model, tmp_path / "once")
    once = load(tmp_path / "once")
    assert once.config == model.config
    assert same_weights(once, model)
    save_huggingface(once, tmp_path / "twice")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_weights_are_stored_in_the_dtype_asked_for(model, tmp_path, dtype):
    save_huggingface(model, tmp_path, dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {dtype}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert torch.equal(stored["model.norm.weight"], model.norm.weight.to(dtype))


@pytest.mark.parametrize(("dtype", "kind"), [(torch.int8, ValueError), ("bfloat16", TypeError)])
def test_a_dtype_that_is_not_read_again_is_refused(model, tmp_path, dtype, kind):
    with pytest.raises(kind, match="dtype is"):
        save_huggingface(model, tmp_path, dtype)
    assert not list(tmp_path.iterdir())


def test_the_layouts_of_both_formats_differ_in_queries_and_keys_alone(tmp_path):
    meta_model = randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(PARAMS))))
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


def test_tied_weights_stay_one_tensor(tmp_path):
    """load_state_dict(assign=True) alone makes two parameters of one tensor, and the model grows on `.to()`."""
    config = shrink("llama3.2-1b")
    save_huggingface(randomize(dl.Transformer(config)), tmp_path)
    model = load(tmp_path)
    assert model.output.weight is model.tok_embeddings.weight
    assert sum(p.numel() for p in model.parameters()) == config.n_params
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


def test_weights_that_are_one_though_the_configuration_does_not_tie_them_are_stored_twice(model, tmp_path):
    model.output.weight = model.tok_embeddings.weight
    model.layers[1].feed_forward = model.layers[0].feed_forward
    save_huggingface(model, tmp_path)
    assert same_weights(load(tmp_path), model)


def test_an_output_that_its_configuration_wrongly_ties_is_not_dropped(model, tmp_path):
    model.config = dataclasses.replace(model.config, tie_embeddings=True)
    with pytest.raises(ValueError, match="ties embedding and output, which differ"):
        save_huggingface(model, tmp_path)


@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_int8_model_is_saved_as_its_rows_times_their_scales(preset, dtype, tmp_path):
    """Its codes under the names of weights would load in transformers, 200 times too large.

    In bfloat16 the products of rows and scales are rounded once, by up to 2^-9, which they are not in the model.
    """
    model = quantize_int8(randomize(dl.Transformer(shrink(preset))).to(dtype))
    save_huggingface(model, tmp_path)
    found = dl.load_model(tmp_path, dtype=dtype)
    for name, weight in model.state_dict().items():
        if name.endswith(".scale"):
            codes = model.state_dict()[name.replace(".scale", ".weight")]
            expected = (codes.float() * weight[:, None]).to(dtype)
            assert torch.equal(found.state_dict()[name.replace(".scale", ".weight")], expected)
    assert relative_difference(found(TOKENS), model(TOKENS)) < {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]


@pytest.mark.parametrize("change", ["more", "less", "shape", "meta", "integers"])
def test_what_is_no_llama_is_refused(model, tmp_path, change):
    if change == "more":
        model.layers[1].attention.wq.bias = torch.nn.Parameter(torch.ones(192))
    elif change == "less":
        model.layers[1].ffn_norm = torch.nn.Identity()
    elif change == "shape":
        model.output = torch.nn.Linear(192, 321, bias=False)
    elif change == "meta":
        model = model.to("meta")
    else:
        model.norm.weight = torch.nn.Parameter(torch.ones(192, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"the model's .* (asks for|on 'meta')|found torch\.int8"):
        save_huggingface(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_token_ids_are_the_ones_given_or_none(model, tmp_path):
    """A model does not know its tokenizer. transformers takes absent ids for 1 and 2, so they are null."""
    save_huggingface(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["bos_token_id"] is config["eos_token_id"] is None
    save_huggingface(model, tmp_path, bos_token_id=7, eos_token_id=(8, 9))
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (7, [8, 9])


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "adapter_config.json",
        "generation_config.json",
        "params.json",
        "consolidated.00.pth",
    ],
)
def test_files_of_another_model_are_neither_mixed_with_nor_deleted(model, tmp_path, file):
    (tmp_path / file).write_text("theirs")
    with pytest.raises(ValueError, match=rf"holds '{file}', with which another model would be read"):
        save_huggingface(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_text() == "theirs"


def test_shards_and_metas_folder_are_left_alone(model, tmp_path):
    save_huggingface(model, tmp_path / "shards")
    into_shards(tmp_path / "shards")
    (tmp_path / "meta").mkdir()
    save_meta(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(PARAMS))), tmp_path / "meta")
    for folder in (tmp_path / "shards", tmp_path / "meta"):
        with pytest.raises(ValueError, match="with which another model would be read"):
            save_huggingface(model, folder)
        load(folder)


def test_a_file_in_place_of_the_directory_is_refused(model, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="is a file, but a directory is needed"):
        save_huggingface(model, tmp_path / "out")


def test_other_files_stay_and_no_partial_one_is_left(model, tmp_path):
    (tmp_path / "tokenizer.model").write_text("mine")
    save_huggingface(model, str(tmp_path))
    save_huggingface(randomize(dl.Transformer(shrink("llama2-7b"))), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    assert load(tmp_path).config == shrink("llama2-7b")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_get_the_permissions_that_the_umask_gives(model, tmp_path, umask):
    before = os.umask(umask)
    try:
        save_huggingface(model, tmp_path)
    finally:
        os.umask(before)
    for file in ("config.json", "model.safetensors"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o666 & ~umask


def test_a_full_disk_leaves_the_old_model_whole(model, tmp_path, monkeypatch):
    save_huggingface(model, tmp_path)

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(export, "save_file", fail)
    with pytest.raises(OSError, match=r"model\.safetensors cannot be written .* is the disk full"):
        save_huggingface(randomize(dl.Transformer(shrink("llama2-7b"))), tmp_path)
    assert same_weights(load(tmp_path), model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_that_cannot_be_replaced_leave_the_old_model_whole(model, tmp_path, monkeypatch):
    """As on Windows, where a file that a model is mapped from cannot be."""
    save_huggingface(model, tmp_path)
    replace = type(tmp_path).replace

    def refuse(path, target):
        if path.name.startswith("model"):
            raise PermissionError("in use")
        return replace(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", refuse)
    with pytest.raises(OSError, match="in use"):
        save_huggingface(randomize(dl.Transformer(shrink("llama2-7b"))), tmp_path)
    assert load(tmp_path).config == model.config
    assert same_weights(load(tmp_path), model)


KILLED = """
import dataclasses, os, pathlib, sys, decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface

moved, replace = [], pathlib.Path.replace

def replace_or_die(path, target):
    moved.append(path)
    if len(moved) > int(sys.argv[2]):
        os._exit(9)
    return replace(path, target)

pathlib.Path.replace = replace_or_die
model = dl.load_model(sys.argv[1])
model.config = dataclasses.replace(model.config, rope_theta=77.0)
model.norm.weight.data = model.norm.weight + 1
save_huggingface(model, sys.argv[1])
"""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_never_pairs_one_models_weights_with_anothers_configuration(model, tmp_path, renames):
    """The two differ in nothing that a shape could show."""
    save_huggingface(model, tmp_path)
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(renames)], capture_output=True, text=True)
    assert run.returncode == (0 if renames == 2 else 9), run.stderr
    if renames < 2:
        with pytest.raises(ValueError, match=r"neither config\.json"):
            load(tmp_path)
    else:
        found = load(tmp_path)
        assert found.config.rope_theta == 77.0
        assert torch.equal(found.norm.weight, model.norm.weight + 1)
