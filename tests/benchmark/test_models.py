"""Models of random weights, against loaded ones."""

import weakref

import pytest
import torch
from conftest import randomize, shrink

import decoding_llama3 as dl
from decoding_llama3.benchmark import models
from decoding_llama3.benchmark.models import preset_config, random_model
from decoding_llama3.benchmark.work import tensor_bytes
from decoding_llama3.inference import memory
from decoding_llama3.inference.checkpoint.export import save_huggingface

TOKENS = torch.tensor([[1, 2, 3]])


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])
def test_a_random_model_is_made_as_a_loaded_one(preset, quantize, tmp_path):
    config = shrink(preset)
    save_huggingface(randomize(dl.Transformer(config)), tmp_path)
    loaded = dl.load_model(tmp_path, dtype=torch.float16, quantize=quantize)
    made = random_model(config, dtype=torch.float16, quantize=quantize)
    like = {name: (t.shape, t.dtype) for name, t in loaded.state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in made.state_dict().items()} == like
    assert tensor_bytes(made) == tensor_bytes(loaded)  # ties too
    logits = made(TOKENS)
    assert logits.isfinite().all()
    assert logits.std() > 0.01
    assert not any(weight.requires_grad for weight in made.parameters())


@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])
def test_random_int8_weights_are_the_random_weights_rounded(preset):
    """Then the tokens of both can be compared."""
    logits = [random_model(shrink(preset), quantize=quantize)(TOKENS) for quantize in (None, "int8")]
    assert 0 < (logits[0] - logits[1]).norm() / logits[0].norm() < 0.02


def test_one_matrix_at_a_time_is_wider_than_int8(monkeypatch):
    """A card that holds the 8B in int8 only could not make it otherwise."""
    wide, draw = weakref.WeakSet(), models._random

    def counted(shape, dtype, generator):
        weight = draw(shape, dtype, generator)
        if len(shape) > 1:
            wide.add(weight)
        assert len(wide) <= 1
        return weight

    monkeypatch.setattr(models, "_random", counted)
    random_model(shrink("llama3-8b"), quantize="int8")
    assert not wide


def test_presets_have_the_parameters_they_are_named_for():
    assert (
        preset_config("125m").n_params
        == 2 * 32_000 * 768 + 12 * (2 * 768 * 768 + 2 * 256 * 768 + 3 * 2048 * 768 + 2 * 768) + 768
    )
    assert preset_config("1.5b").n_params == preset_config("llama3.2-1b").n_params + 128_256 * 2048
    assert preset_config("8b").n_params == preset_config("llama3-8b").n_params == 8_030_261_248
    with pytest.raises(ValueError, match="no preset is called '7b'; there are 125m, "):
        preset_config("7b")


def test_a_random_model_that_memory_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    with pytest.raises(ValueError, match="GiB are free"):
        random_model(shrink("llama3-8b"))


def test_an_unknown_quantisation_is_refused():
    with pytest.raises(ValueError, match="quantize is None or 'int8', found 'int4'"):
        random_model(shrink("llama3-8b"), quantize="int4")
