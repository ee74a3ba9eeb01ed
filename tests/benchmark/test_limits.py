"""Limits of a machine: work over time, at a speed that we set."""

import pytest
import torch

from decoding_llama3.benchmark import clock
from decoding_llama3.benchmark.limits import Limits, mean_limits, measure_limits


@pytest.fixture
def took(monkeypatch):
    """Seconds of each kind of call, by its name."""
    took = {"sum": 0.03, "dot": 0.02, "mv": 0.04, "copy": 0.05, "linear": 0.005}

    def best_seconds(call, device):
        return took[getattr(call, "func", call).__name__.strip("_")]

    monkeypatch.setattr(clock, "best_seconds", best_seconds)
    return took


def test_limits_are_work_over_time(took, model):
    limits = measure_limits(model.config, "cpu", torch.float32, n_bytes=2**20)
    assert limits.read_bytes_per_s == pytest.approx(2**20 / 0.02)
    assert limits.copy_bytes_per_s == pytest.approx(2 * 2**20 / 0.05)
    weights = 2 * 192 * 192 + 2 * 48 * 192 + 3 * 176 * 192
    assert limits.flops_per_s == pytest.approx(2 * 512 * weights / (7 * 0.005))


@pytest.mark.parametrize(
    ("name", "words"), [("sum", "sum"), ("dot", "dot product"), ("mv", "matrix times vector")]
)
def test_the_fastest_reduction_is_the_limit_and_named(took, model, name, words):
    took[name] = 0.01
    limits = measure_limits(model.config, "cpu", torch.float32, n_bytes=2**20)
    assert (limits.read_by, limits.read_bytes_per_s) == (words, pytest.approx(2**20 / 0.01))


def test_limits_before_and_after_are_averaged():
    one, other = Limits(1e9, "sum", 2e9, 1e12), Limits(3e9, "dot product", 4e9, 2e12)
    assert mean_limits(one, other) == Limits(2e9, "sum", 3e9, 1.5e12)
