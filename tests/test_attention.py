"""Part 5. Oracle: PyTorch's scaled_dot_product_attention, in float64, with its own sharing of heads."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import randomize, relative_difference, shrink
from hypothesis import given, settings
from hypothesis import strategies as st

import decoding_llama3 as dl

HEADS = [(12, 3), (8, 2), (6, 1), (5, 5)]  # query and key/value heads: shared by 4, by 4, by all, by one


def qkv(heads: int, kv_heads: int, seq: int, length: int, dtype=torch.float64) -> list[torch.Tensor]:
    shapes = (heads, seq), (kv_heads, length), (kv_heads, length)
    return [torch.randn(2, n, tokens, 16, dtype=torch.float64).to(dtype) for n, tokens in shapes]


def implementations(q, k, v, mask) -> dict[str, torch.Tensor]:
    return {"explicit": dl.attend_explicitly(q, k, v, mask)[0], "fast": dl.attend(q, k, v, mask)}


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_without_a_mask_it_is_causal_attention(heads, kv_heads):
    """Catches a scale by dim or none, a mask with the wrong diagonal, a softmax over the queries."""
    q, k, v = qkv(heads, kv_heads, 7, 7)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    for name, found in implementations(q, k, v, None).items():
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize(("seq", "length"), [(5, 11), (1, 11), (1, 1), (11, 11)])
def test_with_a_mask_it_is_masked_attention(heads, kv_heads, seq, length):
    """Catches a mask that is laid over the rows of another head, where heads become rows."""
    q, k, v = qkv(heads, kv_heads, seq, length)
    mask = torch.rand(seq, length) < 0.5
    mask[:, 0] = True  # a query that may look nowhere has no answer
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    for name, found in implementations(q, k, v, mask).items():
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, msg=name)


@given(heads=st.sampled_from(HEADS), seq=st.integers(1, 9), past=st.integers(0, 9), seed=st.integers(0, 2**32))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_the_fast_twin_is_the_definition(heads, seq, past, seed):
    torch.manual_seed(seed)
    q, k, v = qkv(*heads, seq, past + seq, torch.float32)
    mask = dl.causal_mask(torch.arange(past, past + seq), past + seq)
    found = implementations(q, k, v, mask)
    torch.testing.assert_close(found["fast"], found["explicit"], rtol=0, atol=1e-5)


def test_neighbours_share_a_key_value_head():
    """repeat_interleave, not tile: query heads 0 to 3 belong to key/value head 0, 4 to 7 to head 1, ..."""
    q, k, v = qkv(12, 3, 7, 7)
    right = torch.cat(
        [
            F.scaled_dot_product_attention(q[:, [h]], k[:, [h // 4]], v[:, [h // 4]], is_causal=True)
            for h in range(12)
        ],
        dim=1,
    )
    tiled = F.scaled_dot_product_attention(q, k.tile(1, 4, 1, 1), v.tile(1, 4, 1, 1), is_causal=True)
    for mask in (None, dl.causal_mask(torch.arange(7), 7)):
        for name, found in implementations(q, k, v, mask).items():
            torch.testing.assert_close(found, right, rtol=0, atol=1e-6, msg=name)
            assert relative_difference(found, tiled) > 0.1


def test_the_weights_are_those_that_mix_the_values():
    q, k, v = qkv(12, 3, 7, 7)
    out, weights = dl.attend_explicitly(q, k, v, None)
    assert weights.shape == (2, 12, 7, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 12, 7, dtype=torch.float64))
    assert (weights.triu(1) == 0).all()
    assert (weights.tril() > 0)[..., torch.ones(7, 7).tril().bool()].all()
    torch.testing.assert_close(out, torch.einsum("bhst,bhtd->bhsd", weights, v.repeat_interleave(4, 1)))


def test_the_first_token_looks_at_itself():
    q, k, v = qkv(12, 3, 7, 7)
    for found in implementations(q, k, v, None).values():
        torch.testing.assert_close(found[:, :, 0], v[:, :, 0].repeat_interleave(4, 1))


def test_equal_scores_give_the_mean():
    """Catches a value that is not averaged over what is in sight."""
    q, k, v = qkv(4, 2, 6, 6)
    for found in implementations(q * 0, k, v, None).values():
        mean = v.cumsum(2) / torch.arange(1, 7)[:, None]
        torch.testing.assert_close(found, mean.repeat_interleave(2, 1), rtol=0, atol=1e-6)


def test_the_softmax_is_taken_in_float32():
    """Catches float16 weights that no longer add up: 4,000 equal ones are 1/4,000 each, rounded once."""
    q, k, v = qkv(2, 1, 1, 4000, torch.float16)
    mask = torch.ones(1, 4000, dtype=torch.bool)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=mask, enable_gqa=True)
    out, weights = dl.attend_explicitly(q, k, v, mask)
    assert out.dtype == weights.dtype == torch.float16
    assert relative_difference(out.double(), exact) < 2e-2
    scores = (q.double() @ k.double().transpose(-2, -1)) / 4
    rounded = scores.half().float().softmax(-1).half()
    assert relative_difference(weights.double(), rounded.double()) < 2e-3


@pytest.mark.parametrize(
    "attend", [dl.attend, lambda *args: dl.attend_explicitly(*args)[0]], ids=["fast", "explicit"]
)
@pytest.mark.parametrize("masked", [False, True])
def test_the_future_leaks_nothing_by_gradient(attend, masked):
    """Catches a mask set after the softmax, one with the wrong diagonal, and a mean over the sequence."""
    q, k, v = (x.requires_grad_() for x in qkv(4, 2, 6, 6))
    mask = dl.causal_mask(torch.arange(6), 6) if masked else None
    for i in range(6):
        gradients = torch.autograd.grad(attend(q, k, v, mask)[:, :, i].square().sum(), (q, k, v))
        for name, gradient in zip("qkv", gradients, strict=True):
            seen = gradient.abs().amax((0, 1, 3)) > 1e-12
            expected = torch.arange(6) == i if name == "q" else torch.arange(6) <= i
            if i > 0 or name == "v":  # with one key in sight its weight is 1, whatever q and k are
                assert torch.equal(seen, expected), (name, i)
            assert not seen[i + 1 :].any()


def test_causal_mask_is_the_lower_triangle():
    assert torch.equal(dl.causal_mask(torch.arange(9), 9), torch.ones(9, 9).tril().bool())


@given(length=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=4))
@settings(deadline=None, derandomize=True)
def test_the_mask_of_a_chunk_is_a_slice_of_the_whole(length, cuts):
    """Catches a square mask: the second chunk of a prompt would see its future, or nothing of the past."""
    whole = dl.causal_mask(torch.arange(length), length)
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    for start, end in itertools.pairwise(edges):
        assert torch.equal(dl.causal_mask(torch.arange(start, end), length), whole[start:end])


def test_slots_beyond_the_position_are_hidden():
    """A cache longer than the text: what lies behind is not yet written."""
    mask = dl.causal_mask(torch.tensor([3]), 8)
    assert mask.tolist() == [[True] * 4 + [False] * 4]


@pytest.fixture
def attention() -> dl.Attention:
    return randomize(dl.Attention(shrink("llama3-8b")))


def test_the_module_is_project_rotate_attend_project(attention):
    """Catches values that are rotated, keys that are not, and heads joined in the wrong order."""
    x, positions = torch.randn(2, 7, 192), torch.arange(50, 57)
    rotation = dl.rope_rotation(dl.rope_frequencies(16, 1e4), positions)
    q, k, v = (
        (x @ w.weight.T).view(2, 7, -1, 16).transpose(1, 2) for w in (attention.wq, attention.wk, attention.wv)
    )
    q, k = dl.apply_rope(q, rotation), dl.apply_rope(k, rotation)
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    expected = heads.transpose(1, 2).reshape(2, 7, 192) @ attention.wo.weight.T
    assert relative_difference(attention(x, positions, rotation), expected) < 1e-6


def test_shapes_of_the_projections(attention):
    """Keys and values have fewer heads, and so fewer rows."""
    shapes = {name: tuple(weight.shape) for name, weight in attention.named_parameters()}
    assert shapes == {
        "wq.weight": (192, 192),
        "wk.weight": (48, 192),
        "wv.weight": (48, 192),
        "wo.weight": (192, 192),
    }


def test_with_a_cache_keys_are_stored_rotated(attention):
    """Catches keys that are rotated again, by the wrong positions, when they are read."""
    cache = dl.KVCache(2, 3, 10, 16)
    x, positions = torch.randn(2, 4, 192), torch.arange(3, 7)
    rotation = dl.rope_rotation(dl.rope_frequencies(16, 1e4), positions)
    with torch.inference_mode():
        attention(x, positions, rotation, dl.causal_mask(positions, 10), cache)
        k = (x @ attention.wk.weight.T).view(2, 4, 3, 16).transpose(1, 2)
        v = (x @ attention.wv.weight.T).view(2, 4, 3, 16).transpose(1, 2)
    torch.testing.assert_close(cache.keys[:, :, 3:7], dl.apply_rope(k, rotation))
    torch.testing.assert_close(cache.values[:, :, 3:7], v)
    assert not cache.keys[:, :, [0, 1, 2, 7, 8, 9]].any()
