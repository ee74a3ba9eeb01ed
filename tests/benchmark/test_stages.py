"""Four ways to decode: their predictions, and what is held in memory meanwhile."""

import dataclasses
import gc
import json
import weakref
from functools import partial

import pytest
import torch
from conftest import shrink

from decoding_llama3.benchmark import clock, speed_ladder
from decoding_llama3.benchmark.limits import Limits
from decoding_llama3.benchmark.models import random_model
from decoding_llama3.benchmark.stages import Stage
from decoding_llama3.benchmark.work import count_flops, read_bytes
from decoding_llama3.inference import compile
from decoding_llama3.inference.data import data_directory

LIMITS = Limits(read_bytes_per_s=1e9, read_by="sum", copy_bytes_per_s=1e9, flops_per_s=1e12)


@pytest.fixture
def uncompiled(monkeypatch):
    """torch.compile that returns what it is given: these tests are not of the compiler."""
    monkeypatch.setattr(torch, "compile", lambda function=None, **how: function or (lambda given: given))
    monkeypatch.setattr(compile, "_compiled", compile._compiled.__wrapped__)  # and that is kept for no other test
    monkeypatch.setattr(clock, "median_seconds", lambda call, device: 1.0)


def test_the_ladder_has_four_stages_with_their_predictions(uncompiled):
    load = partial(random_model, shrink("llama3-8b"), "cpu", torch.float32)
    limits = dataclasses.replace(LIMITS, flops_per_s=1e9)
    stages = speed_ladder(load, 40, new_tokens=2, limits=limits)
    assert [stage.name for stage in stages] == ["full recompute", "KV cache", "compiled step", "int8"]
    assert [stage.bound_by for stage in stages] == ["arithmetic", "memory", "memory", "arithmetic"]
    assert stages[0].predicted_seconds == pytest.approx(count_flops(load().config, 41) / 1e9)
    cache = 40 * 2 * 2 * 48 * 4
    assert stages[1].predicted_seconds == pytest.approx((read_bytes(load()) + cache) / 1e9)
    assert stages[3].predicted_seconds == pytest.approx(count_flops(load().config, 1, before=40) / 1e9)
    with pytest.raises(ValueError, match="contexts of this model have 1 to 8187 tokens here, found 8190"):
        speed_ladder(load, 8190, new_tokens=2, limits=limits)


def test_a_ladder_without_compiler_has_two_stages(monkeypatch):
    monkeypatch.setattr(compile, "find_compiler", lambda: None)
    stages = speed_ladder(partial(random_model, shrink("llama3-8b")), 9, new_tokens=1, limits=LIMITS)
    assert [stage.name for stage in stages] == ["full recompute", "KV cache"]
    assert all(stage.measured_seconds > 0 for stage in stages)


def test_no_model_is_kept_while_the_next_one_is_loaded(uncompiled):
    """Two of the 8B would not fit where one does."""
    models = []

    def load(quantize=None):
        gc.collect()
        assert not [model for model in models if model() is not None]
        model = random_model(shrink("llama3-8b"), quantize=quantize)
        models.append(weakref.ref(model))
        return model

    speed_ladder(load, 9, new_tokens=1, limits=LIMITS)
    assert len(models) == 4


def test_stages_have_the_fields_of_the_measured_ones_in_data():
    """Which Part 7 draws: other names would leave its figure empty when they are measured again."""
    measured = json.loads((data_directory() / "benchmarks" / "ladder-125m.json").read_text())
    assert [field.name for field in dataclasses.fields(Stage)] == list(measured["rungs"][0])
