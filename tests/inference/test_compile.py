"""The compiled decode step: the same numbers from the same weights, and one graph for every length."""

import dataclasses

import pytest
import torch
from conftest import randomize, relative_difference, shrink
from torch import nn

import decoding_llama3 as dl
from decoding_llama3.inference import compile, generator
from decoding_llama3.inference.compile import OneRowLinear, compile_decode_step
from decoding_llama3.inference.quantize import quantize_int8, quantize_rows


def copy_of(model: dl.Transformer) -> dl.Transformer:
    """The same weights, and no compiled step."""
    plain = dl.Transformer(model.config).eval()
    plain.load_state_dict(model.state_dict())
    return plain


PROMPT = [5, 77, 130, 9, 64]
compiles = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's compiler, of itself


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch._dynamo.reset()


@pytest.mark.parametrize("columns", [16, 37, 2048, 4096 + 64, 2 * 2053])
@pytest.mark.parametrize("rows", [1, 3, 8, 61])
def test_a_row_is_what_the_matrix_library_gives(rows, columns):
    """Rows that four does not divide, columns that no piece below the longest divides (2,053 is a prime)."""
    weight, x = torch.randn(rows, columns), torch.randn(1, 1, columns)
    exact = nn.functional.linear(x.double(), weight.double())
    assert relative_difference(OneRowLinear(weight, None)(x), exact) < 1e-5
    quantized, scale = quantize_rows(weight)
    exact = nn.functional.linear(x.double(), quantized.double() * scale.double()[:, None])
    found = OneRowLinear(quantized, scale)(x)
    assert relative_difference(found, exact) < 1e-5
    assert found.shape == (1, 1, rows)


def test_half_precision_is_summed_in_single():
    """Products rounded to bfloat16 are off by 0.06 in all here, and that shows where the sum is near 0."""
    weight, x = torch.randn(1000, 4096).bfloat16(), torch.randn(1, 1, 4096).bfloat16()
    found = OneRowLinear(weight, None)(x)
    assert found.dtype == torch.bfloat16
    exact = nn.functional.linear(x.double(), weight.double())
    assert ((found - exact).abs() <= 2**-8 * exact.abs() + 1e-3).all()


def test_several_rows_are_several_products():
    weight, x = torch.randn(7, 16), torch.randn(2, 3, 16)
    expected = nn.functional.linear(x, weight)
    torch.testing.assert_close(OneRowLinear(weight, None)(x), expected)
    torch.testing.assert_close(OneRowLinear(weight, torch.full((7,), 2.0))(x), 2 * expected)


@compiles
@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])
@pytest.mark.parametrize("quantize", [lambda model: model, quantize_int8], ids=["float32", "int8"])
def test_one_graph_serves_every_length_and_every_text(preset, quantize, monkeypatch):
    """And chooses the tokens that the plain model chooses."""
    monkeypatch.setattr(generator, "BUCKET", 16)
    model = quantize(randomize(dl.Transformer(shrink(preset)).requires_grad_(False)))
    texts = [(PROMPT, 80), (PROMPT * 9, 30), (PROMPT[:1], 40)]
    eager = [list(dl.generate(model, prompt, n)) for prompt, n in texts]
    compile_decode_step(model)
    first = list(dl.generate(model, PROMPT, 2))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert [list(dl.generate(model, prompt, n)) for prompt, n in texts] == eager
    assert first == eager[0][:2]


@compiles
def test_the_step_reads_the_models_own_weights():
    """A copy would double the memory, and go on with old weights after training."""
    model = randomize(dl.Transformer(shrink("llama3.2-1b")).requires_grad_(False))
    names = list(model.state_dict())
    compile_decode_step(model)
    assert list(model.state_dict()) == names  # the step is no part of the model that is saved
    caches = model.make_caches(1, 16)
    token, position = torch.tensor([[7]]), torch.tensor([3])
    before = model.decode_step(token, position, caches)
    for weight in model.parameters():
        weight.mul_(1.1)
    after = model.decode_step(token, position, caches)
    assert relative_difference(after, before) > 1e-2
    assert relative_difference(after, model(token, position, caches)) < 1e-5


@compiles
def test_generate_compiles_when_asked(model):
    expected = list(dl.generate(model, PROMPT, 10))
    assert not hasattr(model, "decode_step")
    assert list(dl.generate(model, PROMPT, 10, compile=True)) == expected
    assert hasattr(model, "decode_step")


@compiles
def test_each_model_has_graphs_of_its_own():
    """torch allows so many graphs a function, eight by default: the ninth model of a process must not fail."""
    with torch._dynamo.config.patch(recompile_limit=1):
        for preset in ("llama3-8b", "llama3.2-1b"):
            model = randomize(dl.Transformer(shrink(preset)).requires_grad_(False))
            assert list(dl.generate(model, PROMPT, 3, compile=True)) == list(
                dl.generate(copy_of(model), PROMPT, 3)
            )


@compiles
def test_a_compiler_that_fails_is_told_in_a_sentence(model, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("g++ is broken")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fail)
    compile_decode_step(model)
    with pytest.raises(ValueError, match=r"torch.compile failed here \(.*broken.*\): load the model without"):
        list(dl.generate(model, PROMPT, 3))


def test_without_a_compiler_the_model_stays_as_it_is(model, monkeypatch, capsys):
    monkeypatch.setattr(compile, "find_compiler", lambda: None)
    expected = list(dl.generate(model, PROMPT, 10))
    assert list(dl.generate(model, PROMPT, 10, compile=True)) == expected
    assert "no C++ compiler found, so the model stays uncompiled: install g++" in capsys.readouterr().out


@compiles
def test_the_scale_and_the_context_of_the_8b_compile_too():
    """RoPE with Llama 3.1's frequencies, and positions far beyond the first bucket."""
    config = dataclasses.replace(shrink("llama3.1-8b"), n_layers=1)
    model = randomize(dl.Transformer(config).requires_grad_(False))
    prompt = torch.randint(320, (700,), generator=torch.Generator().manual_seed(0)).tolist()
    expected = list(dl.generate(model, prompt, 5))
    assert list(dl.generate(model, prompt, 5, compile=True)) == expected
