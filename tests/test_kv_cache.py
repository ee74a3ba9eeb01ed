"""Part 5. What is written at a position is what is read there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import decoding_llama3 as dl


def tokens(seq: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 3, seq, 16), torch.randn(2, 3, seq, 16)


@pytest.fixture
def cache() -> dl.KVCache:
    return dl.KVCache(batch=2, n_kv_heads=3, length=10, head_dim=16)


def test_what_is_written_is_read_where_it_was_written(cache):
    """Catches keys and values exchanged, an axis exchanged, and a write at the start whatever the position."""
    k, v = tokens(4)
    keys, values = cache.update(torch.arange(3, 7), k, v)
    assert keys.shape == values.shape == (2, 3, 10, 16)
    assert torch.equal(keys[:, :, 3:7], k)
    assert torch.equal(values[:, :, 3:7], v)
    rest = [0, 1, 2, 7, 8, 9]
    assert not keys[:, :, rest].any()
    assert not values[:, :, rest].any()


def test_earlier_tokens_stay(cache):
    """Catches a store that is begun anew at each step."""
    k, v = tokens(6)
    for i in range(6):
        keys, values = cache.update(torch.tensor([i]), k[:, :, i : i + 1], v[:, :, i : i + 1])
    assert torch.equal(keys[:, :, :6], k)
    assert torch.equal(values[:, :, :6], v)


def test_a_position_written_twice_holds_the_last(cache):
    cache.update(torch.arange(5), *tokens(5))
    k, v = tokens(2)
    keys, values = cache.update(torch.arange(1, 3), k, v)
    assert torch.equal(keys[:, :, 1:3], k)
    assert torch.equal(values[:, :, 1:3], v)


@given(st.permutations(range(10)), st.integers(1, 10))
@settings(deadline=None, derandomize=True)
def test_any_order_of_writing_gives_one_store(order, size):
    """The place is the position, not the order of the calls."""
    k, v = tokens(10)
    cache = dl.KVCache(2, 3, 10, 16)
    for start in range(0, 10, size):
        where = torch.tensor(order[start : start + size])
        cache.update(where, k[:, :, where], v[:, :, where])
    assert torch.equal(cache.keys, k)
    assert torch.equal(cache.values, v)


def test_the_store_does_not_move(cache):
    """Catches a store that is copied or grown at each step: its cost would be the square of the text."""
    before = cache.keys.data_ptr(), cache.values.data_ptr()
    keys, values = cache.update(torch.arange(4), *tokens(4))
    cache.update(torch.arange(4, 5), *tokens(1))
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == before == (keys.data_ptr(), values.data_ptr())


@pytest.mark.parametrize("position", [10, -1, -11])
def test_a_position_outside_is_refused(cache, position):
    """Catches a write that wraps round: the first tokens of a long text would be lost without a word."""
    with pytest.raises(IndexError, match="out of bounds"):
        cache.update(torch.tensor([position]), *tokens(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_takes_the_bytes_that_were_asked_for(dtype):
    """Catches query heads stored in place of key/value heads, and a dtype that is not passed on."""
    cache = dl.KVCache(batch=2, n_kv_heads=3, length=10, head_dim=16, dtype=dtype)
    assert sum(buffer.nbytes for buffer in cache.buffers()) == 2 * (2 * 3 * 10 * 16) * dtype.itemsize
    assert cache.keys.dtype == cache.values.dtype == dtype
    assert cache.keys.device.type == "cpu"
    assert dl.KVCache(1, 1, 1, 2, device="meta").values.is_meta


def test_it_is_no_part_of_a_checkpoint(cache):
    """Catches a cache in the state dict: every checkpoint would hold somebody's conversation."""
    cache.update(torch.arange(4), *tokens(4))
    assert cache.state_dict() == {}
    assert list(cache.parameters()) == []
    assert not cache.keys.requires_grad
