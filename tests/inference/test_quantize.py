"""int8 weights: their error, their size, and that the components never know."""

import pytest
import torch
from conftest import relative_difference
from torch import nn

import decoding_llama3 as dl
from decoding_llama3.inference.quantize import Int8Linear, quantize_int8


def linear(rows: int, columns: int) -> nn.Linear:
    layer = nn.Linear(columns, rows, bias=False)
    layer.weight.data = torch.randn(rows, columns) * torch.logspace(-3, 2, rows)[:, None]
    return layer.requires_grad_(False)


def test_each_weight_is_off_by_half_a_step_at_most():
    """A row's step is its largest weight / 127: rows differ by 10^5 here, so one scale for all would show."""
    layer = linear(60, 37)
    stored = Int8Linear(layer)
    step = layer.weight.abs().amax(dim=1, keepdim=True) / 127
    restored = stored.weight.float() * stored.scale[:, None]
    assert ((restored - layer.weight).abs() <= step * 0.5001).all()
    assert stored.weight.abs().amax(dim=1).tolist() == [127] * 60


def test_it_computes_with_the_weights_it_stores():
    layer = linear(60, 37)
    stored = Int8Linear(layer)
    x = torch.randn(3, 37)
    expected = x.double() @ (stored.weight.double() * stored.scale.double()[:, None]).T
    torch.testing.assert_close(stored(x).double(), expected, rtol=1e-5, atol=1e-6)


def test_a_row_of_zeros_stays_zero():
    layer = linear(4, 5)
    layer.weight.data[2] = 0
    stored = Int8Linear(layer)
    assert stored.scale[2] > 0  # 0 / 0 would decide by the processor what stands in the row
    assert stored(torch.ones(1, 5))[0, 2].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_keeps_its_dtype_and_nearly_its_logits(dtype):
    plain = dl.load_model("tiny", dtype=dtype)
    small = dl.load_model("tiny", dtype=dtype, quantize="int8")
    tokens = torch.tensor([dl.load_tokenizer("tiny").encode("There was once a king", bos=True)])
    assert small(tokens).dtype == torch.float32
    assert 0 < relative_difference(small(tokens), plain(tokens)) < 0.05


def test_every_matrix_of_a_block_is_stored_in_one_byte_a_weight(model):
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens)
    assert quantize_int8(model) is model
    linears = [m for m in model.layers.modules() if isinstance(m, (nn.Linear, Int8Linear))]
    assert len(linears) == 7 * 2
    assert all(isinstance(m, Int8Linear) and m.weight.dtype == torch.int8 for m in linears)
    assert isinstance(model.output, nn.Linear)
    assert relative_difference(model(tokens), before) < 0.05
