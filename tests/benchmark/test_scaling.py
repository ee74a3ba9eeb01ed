"""How time and memory grow: predictions, exact bytes, and names that the committed file has."""

import dataclasses
import json

import pytest
from conftest import shrink

from decoding_llama3.benchmark import scaling
from decoding_llama3.benchmark.limits import Limits
from decoding_llama3.benchmark.models import random_model
from decoding_llama3.benchmark.scaling import ScalingPoint, measure_scaling
from decoding_llama3.benchmark.work import count_flops, read_bytes
from decoding_llama3.inference.data import data_directory

LIMITS = Limits(read_bytes_per_s=1e9, read_by="sum", copy_bytes_per_s=1e9, flops_per_s=1e12)


def test_scaling_is_against_context_depth_and_prompt_and_the_cache_is_exact(model):
    points = list(measure_scaling(model, (8, 20, 9000), (1, 2), (8, 30), new_tokens=1, limits=LIMITS))
    found = {(point.against, point.x): point for point in points}
    assert list(found) == [
        *(("context", n) for n in (8, 20)),
        *(("depth", n) for n in (1, 2)),
        *(("prompt", n) for n in (8, 30)),
        *(("cache", n) for n in (8, 20)),
    ]
    assert all(point.measured == point.predicted for point in points if point.against == "cache")
    token_bytes, layer_bytes = 2 * 2 * 48 * 4, 4 * (2 * 192 * 192 + 2 * 48 * 192 + 3 * 176 * 192 + 2 * 192)
    difference = found["context", 20].predicted - found["context", 8].predicted
    assert difference == pytest.approx(12 * token_bytes / 1e9)
    difference = found["depth", 2].predicted - found["depth", 1].predicted
    assert difference == pytest.approx((layer_bytes + 8 * token_bytes / 2) / 1e9)
    assert found["prompt", 30].predicted == pytest.approx(
        max(count_flops(model.config, 30) / 1e12, read_bytes(model) / 1e9)
    )


@pytest.mark.parametrize("compile", [True, False])
def test_every_decode_step_is_compiled_when_that_is_asked_for(monkeypatch, compile):
    """Of the model and of its shallow copies; prompts are read eagerly."""
    asked, our_engine = [], scaling.our_engine

    def engine(model, compile=False):
        asked.append(compile)
        return our_engine(model)

    monkeypatch.setattr(scaling, "our_engine", engine)
    list(measure_scaling(random_model(shrink("llama3-8b")), (8,), (1, 2), (8,), 1, LIMITS, compile))
    assert asked == [compile, compile, compile, False]


def test_contexts_of_which_none_fits_are_refused_in_a_sentence(model):
    with pytest.raises(ValueError, match="no context is given that fits this model: take one of 1 to 8187 tokens"):
        next(measure_scaling(model, contexts=(9000,), new_tokens=2, limits=LIMITS))


def test_points_have_the_fields_of_the_measured_ones_in_data():
    """Which Part 7 draws."""
    measured = json.loads((data_directory() / "benchmarks" / "growth-125m.json").read_text())
    assert [field.name for field in dataclasses.fields(ScalingPoint)] == list(measured["points"][0])
