"""Part 6. Oracle: the LlamaMLP of transformers, on the same weights."""

import pytest
import torch
from conftest import randomize, relative_difference, shrink
from transformers import LlamaConfig as HuggingFaceConfig
from transformers.models.llama.modeling_llama import LlamaMLP

import decoding_llama3 as dl


@pytest.fixture
def feed_forward() -> dl.FeedForward:
    return randomize(dl.FeedForward(shrink("llama3-8b")))


def theirs(feed_forward: dl.FeedForward, **exchanged: str) -> LlamaMLP:
    mlp = LlamaMLP(HuggingFaceConfig(hidden_size=192, intermediate_size=176, hidden_act="silu"))
    names = {"gate_proj": "w_gate", "up_proj": "w_up", "down_proj": "w_down"} | exchanged
    mlp.load_state_dict({f"{name}.weight": getattr(feed_forward, ours).weight for name, ours in names.items()})
    return mlp


def test_equals_the_mlp_of_transformers(feed_forward):
    """Catches a forgotten gate, GELU or ReLU for SiLU, and a gate that is taken after the product."""
    x = 3 * torch.randn(2, 7, 192)
    assert relative_difference(feed_forward(x), theirs(feed_forward)(x)) < 1e-6


def test_gate_and_up_are_not_exchangeable(feed_forward):
    """They have one shape: exchanged, they load and run, and only the numbers tell."""
    x = 3 * torch.randn(2, 7, 192)
    exchanged = theirs(feed_forward, gate_proj="w_up", up_proj="w_gate")
    assert relative_difference(feed_forward(x), exchanged(x)) > 0.1


def test_every_position_is_alone(feed_forward):
    """Catches a mean, a norm or a product over the sequence: token i of the output hears token i only."""
    x = torch.randn(7, 192)
    jacobian = torch.autograd.functional.jacobian(lambda x: feed_forward(x).square().sum(-1), x)  # (7, 7, 192)
    assert torch.equal(jacobian.abs().amax(-1) > 0, torch.eye(7).bool())
    for i in range(7):
        assert relative_difference(feed_forward(x[i]), feed_forward(x)[i]) < 1e-6


def test_what_the_gate_closes_is_silent(feed_forward):
    """Catches an activation on the other branch: with every gate far below zero nothing comes through."""
    with torch.no_grad():
        feed_forward.w_gate.weight.fill_(-1.0)
    assert feed_forward(torch.ones(1, 192)).abs().max() < 1e-20
    with torch.no_grad():
        feed_forward.w_gate.weight.fill_(1.0)
    assert feed_forward(torch.ones(1, 192)).abs().max() > 1


def test_shapes_and_no_bias(feed_forward):
    """Two matrices widen, one narrows; zero in gives zero out."""
    shapes = {name: tuple(weight.shape) for name, weight in feed_forward.named_parameters()}
    assert shapes == {"w_gate.weight": (176, 192), "w_up.weight": (176, 192), "w_down.weight": (192, 176)}
    assert not feed_forward(torch.zeros(1, 192)).any()


def test_it_keeps_the_dtype(feed_forward):
    assert feed_forward.to(torch.bfloat16)(torch.randn(3, 192).bfloat16()).dtype == torch.bfloat16
