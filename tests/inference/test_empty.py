"""Models of shapes alone."""

import pytest
from conftest import shrink

import decoding_llama3 as dl
from decoding_llama3.inference.empty import empty_model, in_first_layer, tensor_shapes


def test_the_first_layer_stands_for_all():
    config = shrink("llama3-8b")
    model = dl.Transformer(config)
    expected = {
        name: tuple(weight.shape) for name, weight in model.state_dict().items() if "layers.1." not in name
    }
    assert tensor_shapes(config) == expected


def test_an_empty_model_is_to_be_run_and_takes_no_memory():
    model = empty_model(dl.LlamaConfig.from_preset("llama3.1-405b"))
    assert all(weight.is_meta and not weight.requires_grad for weight in model.parameters())
    assert not model.training


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("layers.31.attention.wq.weight", "layers.0.attention.wq.weight"),
        ("norm.weight", "norm.weight"),
        ("layers.2.layers.3.x", "layers.0.layers.3.x"),
        ("players.7.x", "players.7.x"),
    ],
)
def test_a_name_in_the_first_layer(name, first):
    assert in_first_layer(name) == first


def test_sizes_that_no_tensor_has_are_refused():
    sizes = {
        "dim": 2**28,
        "n_heads": 2**27,
        "n_kv_heads": 2**27,
        "head_dim": 2**28,
        "hidden_dim": 8,
        "vocab_size": 8,
    }
    with pytest.raises(ValueError, match="no computer holds a model of dim 268435456, hidden_dim 8"):
        tensor_shapes(dl.LlamaConfig(n_layers=1, **sizes))
