"""int8 weights: their error, their size, and that the components never know."""

import pytest
import torch
from conftest import relative_difference, shrink
from torch import nn

import decoding_llama3 as dl
from decoding_llama3.inference import quantize
from decoding_llama3.inference.quantize import (
    Int8Embedding,
    Int8Linear,
    int8_product,
    one_row_product,
    quantize_int8,
    quantize_rows,
    row_product,
)
from decoding_llama3.lessons.show import OPENING, TALE


def matrix(rows: int, columns: int) -> torch.Tensor:
    """Rows differ by 10^5, so one scale for all would show."""
    return torch.randn(rows, columns) * torch.logspace(-3, 2, rows)[:, None]


def restored(layer: Int8Linear | Int8Embedding) -> torch.Tensor:
    return layer.weight.double() * layer.scale.double()[:, None]


def test_each_weight_is_off_by_half_a_step_at_most():
    weight = matrix(60, 37)
    rows, scale = quantize_rows(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((rows.float() * scale[:, None] - weight).abs() <= step * 0.5001).all()
    assert rows.abs().amax(dim=1).tolist() == [127] * 60


def test_a_matrix_of_many_slices_is_quantised_whole():
    weight = matrix(5000, 300)
    rows, scale = quantize_rows(weight)
    assert torch.equal(scale, weight.abs().amax(dim=1) / 127)
    assert torch.equal(rows, (weight / scale[:, None]).round().to(torch.int8))


def test_it_computes_with_the_weights_it_stores():
    stored = Int8Linear(*quantize_rows(matrix(60, 37)))
    x = torch.randn(3, 37)
    expected, size = x.double() @ restored(stored).T, x.double().abs() @ restored(stored).abs().T
    assert ((stored(x) - expected).abs() <= 1e-6 * size).all()  # of 37 products, each rounded to 6e-8


def test_an_embedding_looks_up_the_weights_it_stores():
    stored = Int8Embedding(*quantize_rows(matrix(60, 37)), torch.float32)
    tokens = torch.tensor([[3, 59, 0], [1, 1, 7]])
    torch.testing.assert_close(stored(tokens).double(), restored(stored)[tokens], rtol=1e-6, atol=0)


def test_a_row_of_zeros_stays_zero():
    weight = matrix(4, 5)
    weight[2] = 0
    stored = Int8Linear(*quantize_rows(weight))
    assert stored.scale[2] > 0  # 0 / 0 would decide by the processor what stands in the row
    assert stored(torch.ones(1, 5))[0, 2].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_keeps_its_dtype_and_nearly_its_logits(dtype):
    plain = dl.load_model("tiny", dtype=dtype)
    small = dl.load_model("tiny", dtype=dtype, quantize="int8")
    tokens = torch.tensor([dl.load_tokenizer("tiny").encode("There was once a king", bos=True)])
    assert small(tokens).dtype == torch.float32
    assert 0 < relative_difference(small(tokens), plain(tokens)) < 0.05


def test_every_matrix_is_stored_in_one_byte_a_weight(model):
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens)
    assert quantize_int8(model) is model
    matrices = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Embedding, Int8Linear, Int8Embedding))]
    assert len(matrices) == 7 * 2 + 2
    assert all(isinstance(m, (Int8Linear, Int8Embedding)) and m.weight.dtype == torch.int8 for m in matrices)
    assert isinstance(model.output, Int8Linear)
    assert relative_difference(model(tokens), before) < 0.05


def test_tied_matrices_stay_one_and_a_second_time_changes_nothing():
    model = quantize_int8(dl.Transformer(shrink("llama3.2-1b")))
    assert model.output.weight is model.tok_embeddings.weight
    before = dict(model.named_modules())
    quantize_int8(model)
    assert all(before[name] is module for name, module in model.named_modules())


def test_no_weight_of_tiny_is_off_by_more_than_a_254th_of_the_largest_in_its_row():
    plain, small = (dl.load_model("tiny", dtype=torch.float32, quantize=q) for q in (None, "int8"))
    errors = []
    for name, module in small.named_modules():
        if isinstance(module, (Int8Linear, Int8Embedding)):
            weight = plain.get_submodule(name).weight.double()
            largest = weight.abs().amax(dim=1, keepdim=True)
            errors.append(((restored(module) - weight).abs() / largest).max().item())
    assert len(errors) == 7 * plain.config.n_layers + 2
    assert 0.9 / 254 < max(errors) <= 1.0001 / 254  # of 5 million weights one is halfway; the scale is rounded


@torch.inference_mode()
def test_int8_changes_predictions_less_than_a_hundredth_of_a_nat():
    """On a tale that tiny has not seen: 0.0003 nats of KL divergence and 0.1 % of perplexity were measured."""
    tokens = torch.tensor([dl.load_tokenizer("tiny").encode(f"{OPENING}. {TALE}", bos=True)])
    plain, small = (
        dl.load_model("tiny", dtype=torch.float32, quantize=q)(tokens)[0].log_softmax(-1) for q in (None, "int8")
    )
    divergence = (plain.exp() * (plain - small)).sum(-1).mean().item()
    loss = [-x[:-1].gather(1, tokens[0, 1:, None]).mean().item() for x in (plain, small)]
    assert 0 < divergence < 0.01
    assert abs(loss[1] - loss[0]) < 0.01


@pytest.mark.parametrize("product", [int8_product, row_product, one_row_product])
def test_float16_products_stay_finite_where_the_result_is(product):
    """Numbers up to 127 in place of small weights: summed unscaled, they pass 65,504 long before the result."""
    weight = torch.full((6, 512), 0.02)
    x = torch.full((1, 1, 512), 30.0)
    found = product(x.half(), *quantize_rows(weight))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), x @ weight.T, rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cast", [False, True], ids=["made", "cast"])
def test_a_weight_is_off_by_half_a_step_at_most_as_it_is_multiplied(dtype, cast):
    """In every dtype, and after the layer was cast: a row of the identity shows the weight that is used."""
    weight = (0.02 * torch.randn(64, 256, generator=torch.Generator().manual_seed(0))).to(dtype)
    layer = Int8Linear(*quantize_rows(weight))
    if cast:
        layer.to(dtype)
    assert layer.scale.dtype == torch.float32
    step = weight.double().abs().amax(dim=1) / 127
    rounding = torch.finfo(dtype).eps / 2 * weight.double().abs()  # of the product, which is not the weight's
    used = layer(torch.eye(256, dtype=dtype)).double().T
    assert ((used - weight.double()).abs() <= 0.5001 * step[:, None] + 1.01 * rounding).all()
    exact = layer.weight.double() * layer.scale.double()[:, None]
    assert ((used - exact).abs() <= 2.02 * torch.finfo(dtype).eps / 2 * exact.abs()).all()


def test_an_embedding_computes_in_the_dtype_that_the_model_is_cast_to():
    model = quantize_int8(dl.Transformer(shrink("llama3.2-1b")))
    scale = model.tok_embeddings.scale.clone()
    model.bfloat16()
    assert model.tok_embeddings(torch.tensor([3])).dtype == torch.bfloat16
    assert torch.equal(model.tok_embeddings.scale, scale)


def test_a_linear_layer_with_a_bias_is_left_as_it_is():
    model = dl.Transformer(shrink("llama3-8b"))
    model.layers[0].attention.wq = nn.Linear(model.config.dim, model.config.dim)
    quantize_int8(model)
    assert type(model.layers[0].attention.wq) is nn.Linear
    assert type(model.layers[1].attention.wq) is Int8Linear


def test_a_prompt_never_widens_more_than_a_slice(monkeypatch):
    """The 8B's output layer alone would have 2.1 GB in float32."""
    widened, linear = [], quantize.F.linear
    monkeypatch.setattr(quantize, "CPU_SLICE", 1000)
    monkeypatch.setattr(quantize.F, "linear", lambda x, w: (widened.append(w.numel()), linear(x, w))[1])
    layer = Int8Linear(*quantize_rows(matrix(61, 37)))
    x = torch.randn(2, 5, 37)
    found = layer(x)
    assert sum(widened) == 61 * 37
    assert 900 < max(widened) <= 1000
    assert relative_difference(found, x.double() @ restored(layer).T) < 1e-5


@pytest.mark.parametrize("columns", [100, 4096, 5000, 4099])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_of_one_row_is_summed_in_float32(columns, dtype):
    """However its columns are cut: 4,099 is a prime. The oracle is float64."""
    x, weight = torch.randn(1, columns).to(dtype), torch.randn(24, columns).to(dtype)
    right = x.double() @ weight.double().T
    found = row_product(x, weight)
    assert found.dtype == dtype
    assert found.shape == (1, 24)
    rtol = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), right.to(dtype).double(), rtol=rtol, atol=1e-3)
