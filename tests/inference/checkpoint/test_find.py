"""The folder of a checkpoint, and everything that people pass in its place."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import randomize
from folders import PARAMS, TOKENS, into_shards, load, save_meta

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import read_config


@pytest.fixture
def huggingface(model, tmp_path):
    save_huggingface(model, tmp_path)
    return tmp_path


def test_a_place_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no directory"):
        dl.load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"neither config\.json .* nor params\.json"):
        dl.load_model(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    with pytest.raises(ValueError, match=r"should hold consolidated\.00\.pth.* found none"):
        load(tmp_path)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "", "/dev/null/x", "/proc/self/fd/999"])
def test_a_path_that_no_directory_can_have_is_refused(path):
    with pytest.raises(ValueError, match="no directory") as caught:
        load(path)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", [b"tiny", 5, None, ["tiny"]])
def test_what_is_no_path_is_refused_by_its_type(path):
    with pytest.raises(TypeError, match="the path of a checkpoint is a str or a Path, found"):
        load(path)


def test_a_file_in_place_of_its_directory_is_refused(huggingface):
    with pytest.raises(ValueError, match=r"model\.safetensors is a file: pass the directory"):
        load(huggingface / "model.safetensors")


def test_a_name_on_the_hub_is_answered_with_how_to_download_it():
    words = r"is a model on the Hugging Face Hub, run 'decoding-llama3 download meta-llama/Llama-3\.1-8B', once"
    with pytest.raises(ValueError, match=words):
        load("meta-llama/Llama-3.1-8B")


def test_the_cache_of_the_hub_is_answered_with_the_folder_of_a_snapshot(model, tmp_path):
    snapshot = tmp_path / "models--meta-llama--Llama-3.1-8B" / "snapshots" / "0e9e39f249a1"
    save_huggingface(model, snapshot)
    with pytest.raises(ValueError, match=r"pass a snapshot in it, such as 'snapshots/0e9e39f249a1'"):
        load(snapshot.parents[1])
    with pytest.raises(ValueError, match=r"one of the folders in 'models--meta-llama--Llama-3\.1-8B'/snapshots"):
        load(tmp_path)
    load(snapshot)


def test_an_adapter_alone_is_answered_with_how_to_merge_it(huggingface):
    (huggingface / "model.safetensors").rename(huggingface / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"the adapter of a model alone: merge it .*merge_and_unload"):
        load(huggingface)
    (huggingface / "config.json").rename(huggingface / "adapter_config.json")
    with pytest.raises(ValueError, match=r"the adapter of a model alone: merge it .*merge_and_unload"):
        load(huggingface)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_weights_in_a_pickle_are_answered_with_how_to_get_safetensors(huggingface, file):
    (huggingface / "model.safetensors").rename(huggingface / file)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin alone, .* download the model's safetensors, or"):
        load(huggingface)


def test_shards_without_their_index_are_answered_with_its_name(huggingface):
    into_shards(huggingface)
    (huggingface / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match=r"holds shards, but not the model\.safetensors\.index\.json"):
        load(huggingface)


def test_metas_weights_without_their_params_are_answered_with_its_name(huggingface):
    (huggingface / "model.safetensors").rename(huggingface / "consolidated.00.pth")
    with pytest.raises(ValueError, match=r"holds Meta's weights, but not the params\.json"):
        load(huggingface)


def test_no_weights_at_all_are_named(huggingface):
    (huggingface / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model\.safetensors: download the checkpoint again"):
        load(huggingface)


def test_two_configurations_mean_the_format_whose_weights_are_there(huggingface):
    """And `read_config` says the same as `load_model`."""
    other = randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(PARAMS))), seed=1)
    save_meta(other, huggingface)
    first = load(huggingface)
    assert first.config == read_config(huggingface)
    (huggingface / "model.safetensors").unlink()
    assert torch.equal(load(huggingface)(TOKENS), other(TOKENS))
    assert read_config(huggingface) == other.config != first.config


@pytest.mark.skipif(os.name == "nt", reason="no pipes among the files of Windows")
def test_a_pipe_as_configuration_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"neither config\.json"):
        load(Path(tmp_path))


@pytest.mark.parametrize("value", ["192", True, [192]])
def test_a_wrong_type_in_a_configuration_is_the_files_fault(model, tmp_path, value):
    """A TypeError would say that the call is wrong."""
    save_huggingface(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": value}))
    for read in (load, read_config):
        with pytest.raises(ValueError, match=r"sets hidden_size to .*, expected an integer: download the"):
            read(tmp_path)
