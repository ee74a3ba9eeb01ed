"""Part 4. Oracles: complex numbers in float64, and the frequencies of transformers."""

import math

import pytest
import torch
from huggingface_configs import rope_parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig as HuggingFaceConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import decoding_llama3 as dl

FAR = torch.tensor([0, 1, 2, 255, 256, 257, 8191, 8192, 9000, 131_071])


def rotate_by_complex_numbers(x: torch.Tensor, theta: float, positions: torch.Tensor) -> torch.Tensor:
    """The paper's definition in float64: each adjacent pair is a number, multiplied by e^(i m theta^(-2j/d))."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    speeds = theta ** (-2 * torch.arange(pairs.shape[-1], dtype=torch.float64) / x.shape[-1])
    turned = pairs * torch.exp(1j * torch.outer(positions.double(), speeds))
    return torch.view_as_real(turned).flatten(-2)


def rotate(x: torch.Tensor, theta: float, positions: torch.Tensor) -> torch.Tensor:
    freqs = dl.rope_frequencies(x.shape[-1], theta)
    return dl.apply_rope(x, dl.rope_rotation(freqs, positions))


def huggingface_frequencies(head_dim: int, theta: float, scaling: dl.RopeScaling) -> torch.Tensor:
    config = HuggingFaceConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=131_072,
        rope_parameters=rope_parameters(theta, scaling),
    )
    freqs, attention_scaling = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    assert attention_scaling == 1
    return freqs


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("head_dim", [2, 16, 64, 128])
def test_equals_complex_numbers(head_dim, theta):
    """Catches the other pairing, the other direction, a rotation of one half, and an exponent i/d for 2i/d."""
    x, positions = torch.randn(2, 3, 40, head_dim), torch.arange(40)
    expected = rotate_by_complex_numbers(x, theta, positions)
    torch.testing.assert_close(rotate(x, theta, positions).double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_equals_complex_numbers_at_far_positions(theta):
    """Catches angles in half precision, which cannot tell 256 from 257, and a table that ends at 8,192.

    Tolerance: a float32 angle of 131,071 rad is 0.008 rad coarse, its frequency one part in 2^24 more.
    """
    x = torch.randn(2, 3, len(FAR), 128)
    difference = (rotate(x, theta, FAR).double() - rotate_by_complex_numbers(x, theta, FAR)).abs().amax((0, 1, 3))
    length = x.unflatten(-1, (-1, 2)).norm(dim=-1).amax()
    assert (difference <= length * (FAR * 2.0**-22 + 1e-6)).all(), difference
    assert difference[FAR == 9000] < 0.01


def test_a_position_is_rotated_alike_whatever_the_neighbours():
    """Catches a rotation by the index in the chunk in place of the position."""
    x = torch.randn(1, 3, 10, 16)
    whole = rotate(x, 1e4, torch.arange(9000, 9010))
    for i in range(10):
        assert torch.equal(rotate(x[:, :, i : i + 1], 1e4, torch.tensor([9000 + i])), whole[:, :, i : i + 1])


def test_position_zero_changes_nothing():
    x = torch.randn(2, 3, 5, 16)
    assert torch.equal(rotate(x, 1e4, torch.zeros(5, dtype=torch.int64)), x)


@given(position=st.integers(0, 131_071), theta=st.sampled_from([1e4, 5e5, 1e6]), seed=st.integers(0, 2**32))
@settings(deadline=None, derandomize=True)
def test_lengths_are_kept(position, theta, seed):
    """Catches a factor on top, and a sine and cosine of two different angles."""
    x = torch.randn(1, 2, 1, 64, generator=torch.Generator().manual_seed(seed))
    turned = rotate(x, theta, torch.tensor([position]))
    torch.testing.assert_close(turned.unflatten(-1, (-1, 2)).norm(dim=-1), x.unflatten(-1, (-1, 2)).norm(dim=-1))


@given(start=st.integers(0, 9000), query=st.integers(0, 100), key=st.integers(0, 100), seed=st.integers(0, 2**32))
@settings(deadline=None, derandomize=True)
def test_a_score_depends_on_the_distance_only(start, query, key, seed):
    """Catches an absolute position that leaks in. Tolerance: float32 angles up to 9,100 rad are 1e-3 coarse."""
    q, k = torch.randn(2, 1, 1, 1, 64, generator=torch.Generator().manual_seed(seed))

    def score(shift: int) -> torch.Tensor:
        turned = (rotate(x, 1e4, torch.tensor([m + shift])) for x, m in ((q, query), (k, key)))
        return math.prod(turned).sum()

    scale = (q.norm() * k.norm()).item()
    torch.testing.assert_close(score(start), score(0), rtol=0, atol=2e-3 * scale)


def test_a_score_depends_on_the_distance():
    """The other half of it: catches a rotation that cancels."""
    q, k = torch.randn(2, 1, 1, 1, 64)
    scores = [(rotate(q, 1e4, torch.tensor([m])) * k).sum() for m in range(20)]
    assert torch.stack(scores).std() > 0.1


def test_two_turns_are_one():
    x = torch.randn(1, 3, 1, 64)
    twice = rotate(rotate(x, 1e4, torch.tensor([30])), 1e4, torch.tensor([12]))
    torch.testing.assert_close(twice, rotate(x, 1e4, torch.tensor([42])), rtol=0, atol=2e-5)


def test_adjacent_features_are_a_pair():
    """Meta's layout: catches Hugging Face's, which pairs feature i with i + head_dim / 2."""
    x = torch.eye(16)[None, None]  # sixteen tokens, one feature each
    turned = rotate(x, 1e4, torch.full((16,), 5))[0, 0]
    pairs = torch.arange(16) // 2
    assert torch.equal(turned != 0, pairs[:, None] == pairs)


def test_frequencies():
    """theta^(-2i/d): from one radian a position down to almost theta radians less."""
    freqs = dl.rope_frequencies(128, 500_000.0)
    assert freqs.shape == (64,)
    assert freqs[0] == 1
    assert freqs[-1].item() == pytest.approx(500_000 ** (-126 / 128), rel=1e-6)
    assert (freqs.diff() < 0).all()
    assert (2 * math.pi / freqs > 131_072).sum() == 15  # turns never completed in 131,072 tokens


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_frequencies_are_reciprocals(theta):
    """To the last bit as in Meta's and Hugging Face's code; theta^(-x) differs by one ulp in some pairs."""
    exponents = torch.arange(0, 128, 2).float() / 128
    assert torch.equal(dl.rope_frequencies(128, theta), 1 / theta**exponents)
    assert not torch.equal(dl.rope_frequencies(128, theta), theta**-exponents)


def test_frequencies_are_float32_whatever_the_default():
    """Catches frequencies that follow the model's dtype: in bfloat16 they are 14.7 rad wrong by position 8,191."""
    try:
        torch.set_default_dtype(torch.bfloat16)
        freqs = dl.rope_frequencies(128, 500_000.0)
        rotation = dl.rope_rotation(freqs, torch.arange(8192))
    finally:
        torch.set_default_dtype(torch.float32)
    assert freqs.dtype == rotation.dtype == torch.float32
    assert torch.equal(rotation, dl.rope_rotation(dl.rope_frequencies(128, 500_000.0), torch.arange(8192)))
    wrong = (freqs.bfloat16().float() - freqs).abs().max() * 8191
    assert wrong.item() == pytest.approx(14.7, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rotated_in_float32(dtype):
    """Catches cosines rounded before the product: the result is the exact one, rounded once."""
    x = torch.randn(1, 3, len(FAR), 64).to(dtype)
    turned = rotate(x, 1e4, FAR)
    assert turned.dtype == dtype
    assert torch.equal(turned, rotate(x.float(), 1e4, FAR).to(dtype))


def test_angles_are_cosine_and_sine():
    rotation = dl.rope_rotation(torch.tensor([1.0, 0.25]), torch.tensor([0, 2, 9000]))
    angles = [[m * f for f in (1.0, 0.25)] for m in (0, 2, 9000)]
    expected = torch.tensor([[[math.cos(a), math.sin(a)] for a in row] for row in angles])
    torch.testing.assert_close(rotation, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_scaling_is_that_of_transformers(head_dim, factor):
    """Catches factor 8 for all, zones exchanged, and a blend of wavelengths in place of frequencies."""
    scaling = dl.RopeScaling(factor=factor)
    freqs = dl.scale_frequencies(dl.rope_frequencies(head_dim, 500_000.0), scaling)
    torch.testing.assert_close(freqs, huggingface_frequencies(head_dim, 500_000.0, scaling), rtol=1e-6, atol=0)


@given(
    factor=st.floats(1, 64),
    low=st.floats(0.5, 2),
    width=st.floats(0.5, 8),
    context=st.integers(64, 100_000),
    theta=st.sampled_from([1e4, 5e5]),
)
@settings(deadline=None, derandomize=True, max_examples=30)
def test_scaling_is_that_of_transformers_for_any_setting(factor, low, width, context, theta):
    """Catches a number of Llama 3.1's written into the code."""
    scaling = dl.RopeScaling(
        factor=factor, low_freq_factor=low, high_freq_factor=low + width, original_context=context
    )
    freqs = dl.scale_frequencies(dl.rope_frequencies(128, theta), scaling)
    torch.testing.assert_close(freqs, huggingface_frequencies(128, theta, scaling), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("head_dim", "factor", "zones"), [(128, 8.0, (29, 6, 29)), (64, 32.0, (15, 3, 14))])
def test_three_zones(head_dim, factor, zones):
    """Short waves are kept to the bit, long ones slowed by the factor, those between blended."""
    freqs = dl.rope_frequencies(head_dim, 500_000.0)
    scaled = dl.scale_frequencies(freqs, dl.RopeScaling(factor=factor))
    kept, slowed = scaled == freqs, scaled == freqs / factor
    blended = (scaled < freqs) & (scaled > freqs / factor) & ~slowed
    assert (kept.sum(), blended.sum(), slowed.sum()) == zones
    assert (kept.int() + blended.int() * 2 + slowed.int() * 3).tolist() == sorted(
        [1] * zones[0] + [2] * zones[1] + [3] * zones[2]
    )


def test_scaling_has_no_jump():
    """Catches a blend that starts or ends elsewhere than its zone."""
    turns = torch.linspace(0.5, 8, 20_000)  # over the original context
    freqs = turns * 2 * math.pi / 8192
    ratio = dl.scale_frequencies(freqs, dl.RopeScaling(factor=8.0)) / freqs
    assert ratio.diff().abs().max() < 1e-3
    assert ratio.diff().min() > -1e-6
    assert (ratio[0].item(), ratio[-1].item()) == (0.125, 1)
