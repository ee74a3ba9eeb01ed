"""Part 3. Oracle: PyTorch's own rms_norm, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import decoding_llama3 as dl


def norm_and_weight(dim: int, eps: float) -> dl.RMSNorm:
    """Weights that are all different: one that is never applied, or transposed, shows."""
    norm = dl.RMSNorm(dim, eps)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * torch.randn(dim))
    return norm


def exact(norm: dl.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x.double(), (x.shape[-1],), norm.weight.double(), norm.eps)


@given(
    shape=st.lists(st.integers(1, 5), max_size=3),
    dim=st.integers(1, 300),
    eps=st.sampled_from([1e-6, 1e-5, 0.1, 3.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, derandomize=True)
def test_equals_rms_norm_of_pytorch(shape, dim, eps, scale, seed):
    """Catches a mean that is subtracted, a division by the variance, a sum for a mean, another axis, no weight."""
    torch.manual_seed(seed)
    norm, x = norm_and_weight(dim, eps), scale * torch.randn(*shape, dim)
    torch.testing.assert_close(norm(x).double(), exact(norm, x), rtol=2e-6, atol=1e-12)


def test_eps_is_inside_the_root():
    """1 / (rms + eps) is half as large here: x is 0.1, the root of eps 0.1."""
    norm = dl.RMSNorm(8, eps=0.01)
    x = torch.full((1, 8), 0.1)
    torch.testing.assert_close(norm(x), torch.full((1, 8), 0.5**0.5))
    outside = x / (0.1 + 0.01)
    assert (norm(x) - outside).abs().min() > 0.1


def test_zero_stays_zero():
    """What eps is for: without it 0/0 is NaN, and one padded row spoils a batch."""
    assert torch.equal(dl.RMSNorm(8, eps=1e-5)(torch.zeros(2, 8)), torch.zeros(2, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normed_in_float32(dtype):
    """Catches squares in float16, infinite beyond |x| = 255, and a mean in bfloat16, three digits coarse."""
    norm = norm_and_weight(256, eps=1e-5).to(dtype)
    x = (1000 * torch.randn(3, 256)).to(dtype)
    found = norm(x)
    assert found.dtype == dtype
    rounded_twice = 2 * torch.finfo(dtype).eps  # the normed value, and its product with the weight
    torch.testing.assert_close(found.double(), exact(norm, x), rtol=rounded_twice, atol=1e-7)


def test_half_precision_is_rounded_once_before_the_weight():
    """As in Meta's code and in transformers: to the last bit, what the released models were trained with."""
    norm = norm_and_weight(256, eps=1e-5).to(torch.bfloat16)
    x = torch.randn(5, 256).bfloat16()
    normed = F.rms_norm(x.float(), (256,), None, 1e-5)
    assert torch.equal(norm(x), normed.bfloat16() * norm.weight)
    assert not torch.equal(norm(x), (normed * norm.weight.float()).bfloat16())


@given(factor=st.floats(1e-2, 1e3), seed=st.integers(0, 2**32))
@settings(deadline=None, derandomize=True)
def test_length_does_not_matter_and_direction_does(factor, seed):
    """Catches a statistic that is not of the second degree, and an absolute value."""
    torch.manual_seed(seed)
    norm, x = norm_and_weight(64, eps=1e-12), torch.randn(3, 64)
    torch.testing.assert_close(norm(factor * x), norm(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm(-x), -norm(x))


def test_a_constant_is_not_taken_off():
    """Catches LayerNorm: a shift of all features changes the result."""
    norm, x = norm_and_weight(64, eps=1e-5), torch.randn(3, 64)
    assert (norm(x + 5) - norm(x)).abs().mean() > 0.5


def test_the_root_mean_square_becomes_one():
    norm, x = dl.RMSNorm(64, eps=1e-12), 7 * torch.randn(3, 5, 64) + 2
    torch.testing.assert_close(norm(x).square().mean(-1), torch.ones(3, 5))


def test_every_token_is_alone():
    """Catches a statistic over the sequence or the batch: it would let the future leak into the past."""
    norm, x = norm_and_weight(64, eps=1e-5), torch.randn(3, 5, 64)
    changed = x.clone()
    changed[1, 2] *= 100
    changed[1, 2, 0] += 1
    differs = (norm(changed) != norm(x)).any(-1)
    assert differs.nonzero().tolist() == [[1, 2]]


def test_the_gradient_has_no_part_along_the_input():
    """A longer vector gives the same result, so no gradient asks for one; catches a statistic that is detached."""
    norm, x = norm_and_weight(64, eps=1e-12), torch.randn(64, requires_grad=True)
    (norm(x) * torch.randn(64)).sum().backward()
    assert F.cosine_similarity(x, x.grad, dim=0).abs() < 1e-5


def test_it_begins_as_the_identity_of_the_direction():
    norm = dl.RMSNorm(64, eps=1e-5)
    assert {name: weight.tolist() for name, weight in norm.named_parameters()} == {"weight": [1.0] * 64}
