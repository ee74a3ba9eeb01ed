"""The memory that models take and devices have, and the precision chosen for it, against sums done by hand."""

import collections
import math

import psutil
import pytest
import torch
from conftest import shrink

import decoding_llama3 as dl
from decoding_llama3.inference import memory
from decoding_llama3.inference.memory import (
    check_memory,
    choose_fit,
    count_cards,
    find_fit,
    free_bytes,
    gib,
    largest_preset,
    llama3_presets,
    needed_bytes,
    weight_bytes,
)
from decoding_llama3.inference.quantize import quantize_int8

# The 8B has 8,030,261,248 weights, and a cache of 131,072 bytes per token in 16 bits; a tenth of the whole is for
# activations. With 8,192 tokens it takes 38.1 GB in float32, 19.0 GB in bfloat16; in int8, 11.3 GB with float32 or
# 10.1 GB with bfloat16. The 70B, with 327,680 bytes per token, takes 81.4 GB in int8 and 159.8 GB in bfloat16.
LLAMA_8B, LLAMA_70B = (dl.LlamaConfig.from_preset(name) for name in ("llama3-8b", "llama3-70b"))
NEEDED_8B = (2 * 8_030_261_248 + 8192 * 131_072) / 0.9
Memory = collections.namedtuple("Memory", "available")


@pytest.mark.parametrize(
    ("dtype", "gb", "found"),
    [
        (torch.float16, 15, "int8"),
        (torch.bfloat16, 24, "bfloat16"),
        (torch.bfloat16, 40, "bfloat16"),
        (torch.float32, 40, "float32"),
        (torch.float32, 30, "int8"),
        (torch.float32, 11, "int8"),
        (torch.float16, 10, "None"),
    ],
)
def test_the_8b_takes_the_widest_precision_that_fits(dtype, gb, found):
    fit = find_fit(LLAMA_8B, dtype, gb * 10**9)
    assert str(fit) == found
    assert fit is None or fit.needed == needed_bytes(LLAMA_8B, fit.dtype, fit.quantize) <= gb * 10**9


def test_int8_computes_in_16_bits_where_it_does_not_fit_with_float32():
    assert find_fit(LLAMA_8B, torch.float32, int(11.4e9)).dtype == torch.float32
    assert find_fit(LLAMA_8B, torch.float32, int(11.2e9)).dtype == torch.bfloat16
    assert find_fit(LLAMA_8B, torch.float16, int(11.2e9)).dtype == torch.float16


def test_the_bytes_needed_grow_with_batch_and_context():
    assert needed_bytes(LLAMA_8B, torch.bfloat16) == math.ceil(NEEDED_8B)
    for length, batch in ((1, 1), (100, 1), (8192, 1), (8192, 7)):
        needed = (2 * 8_030_261_248 + batch * length * 131_072) / 0.9
        assert needed_bytes(LLAMA_8B, torch.bfloat16, None, length, batch) == math.ceil(needed)
    assert find_fit(LLAMA_8B, torch.bfloat16, 24 * 10**9, 8192, batch=4).quantize is None  # 22.6 GB
    assert find_fit(LLAMA_8B, torch.bfloat16, 24 * 10**9, 8192, batch=8).quantize == "int8"  # 18.5 GB


@pytest.mark.parametrize("length", [0, -1, 8193])
def test_a_context_that_the_model_does_not_have_is_refused(length):
    with pytest.raises(ValueError, match=rf"a context of {length:,} tokens, but this model reads 1 to 8,192"):
        needed_bytes(LLAMA_8B, torch.bfloat16, None, length)


@pytest.mark.parametrize(
    ("quantize", "gb", "cards"),
    [
        (None, 160, 1),
        (None, 85, 2),
        (None, 42, 4),
        (None, 24, 8),
        (None, 15, None),
        ("int8", 24, 4),
        ("int8", 15, 8),
    ],
)
def test_cards_share_the_heads_of_the_70b_evenly(quantize, gb, cards):
    """Eight key/value heads: 1, 2, 4 or 8 cards, never 3."""
    assert count_cards(LLAMA_70B, torch.bfloat16, quantize, gb * 10**9) == cards


def test_llama_3_has_five_sizes():
    assert list(llama3_presets()) == ["llama3.2-1b", "llama3.2-3b", "llama3-8b", "llama3-70b", "llama3.1-405b"]


@pytest.mark.parametrize(
    ("dtype", "free", "found"),
    [
        (torch.bfloat16, NEEDED_8B * 1.001, "llama3-8b in bfloat16"),
        (torch.bfloat16, NEEDED_8B * 0.999, "llama3-8b in int8"),
        (torch.float16, 15e9, "llama3-8b in int8"),
        (torch.bfloat16, 82e9, "llama3-70b in int8"),
        (torch.bfloat16, 8e9, "llama3.2-3b in int8"),
        (torch.bfloat16, 16e6, "tiny in bfloat16"),
        (torch.bfloat16, 8e6, "tiny in int8"),
        (torch.bfloat16, 1e6, "none, not even tiny"),
    ],
)
def test_the_largest_model_is_a_llama_3_where_one_fits(dtype, free, found):
    assert largest_preset(dtype, int(free)) == found


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (30e9, r"use quantize='int8'"),
        (11e9, r"use dtype=torch\.bfloat16 with quantize='int8'"),
        (8e9, r"the largest preset that fits is llama3\.2-3b in int8"),
        (1e6, r"the largest preset that fits is none, not even tiny"),
    ],
)
def test_a_precision_that_does_not_fit_is_refused_with_one_that_does(free, words, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(free))
    message = rf"^the model needs 35\.46 GiB on cpu in float32 .*, but {gib(int(free))} are free: {words}$"
    with pytest.raises(ValueError, match=message):
        check_memory(LLAMA_8B, "cpu", torch.float32)


def test_a_narrower_dtype_is_offered_to_what_is_int8_already(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(10.5e9))
    with pytest.raises(ValueError, match=r"in int8 .* are free: use dtype=torch\.bfloat16$"):
        check_memory(LLAMA_8B, "cpu", torch.float32, "int8")


def test_batch_and_context_are_told_where_they_do_not_fit(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(20e9))
    check_memory(LLAMA_8B, "cpu", torch.bfloat16, None, 4096, 2)
    with pytest.raises(ValueError, match=r"in bfloat16 \(weights, the cache of 4 texts of 4,096 tokens, a tenth"):
        check_memory(LLAMA_8B, "cpu", torch.bfloat16, None, 4096, 4)


@pytest.mark.parametrize(("gb", "quantize"), [(40, None), (30, "int8"), (10.5, "int8")])
def test_what_is_chosen_is_what_loads(gb, quantize, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(gb * 1e9))
    fit = choose_fit(LLAMA_8B, "cpu")
    assert fit.quantize == quantize
    check_memory(LLAMA_8B, "cpu", fit.dtype, fit.quantize)


def test_where_nothing_fits_the_largest_that_would_is_named(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(10e9))
    message = (
        r"needs 9\.43 GiB on cpu in int8 .*, but 9\.31 GiB are free: the largest preset .* llama3\.2-3b in int8$"
    )
    with pytest.raises(ValueError, match=message):
        choose_fit(LLAMA_8B, "cpu")


@pytest.mark.parametrize(
    ("n_bytes", "words"), [(2**30, "1.00 GiB"), (3 * 2**40, "3,072.00 GiB"), (2**20, "0.00098 GiB")]
)
def test_memory_is_told_in_gib(n_bytes, words):
    assert gib(n_bytes) == words


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama3-8b", "llama3.2-1b", "llama2-7b"])
def test_the_bytes_told_are_those_of_the_tensors(name, dtype):
    config = shrink(name)
    model = dl.Transformer(config).to(dtype)
    assert weight_bytes(config, dtype) == sum(weight.nbytes for weight in model.parameters())
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in quantize_int8(model).state_dict().values()}
    assert weight_bytes(config, dtype, "int8") == sum(tensors.values())


def test_on_a_cpu_free_is_what_the_machine_has_available(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(12_345))
    assert free_bytes("cpu") == 12_345


def test_a_card_has_free_what_torch_keeps_of_it_unused(monkeypatch):
    """A deleted model's memory stays with torch, and the next model gets it."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert free_bytes("cuda") == free_bytes(torch.device("cuda", 0)) == 1500


@pytest.mark.parametrize(("available", "free"), [(5000, 600), (500, 500)])
def test_mps_takes_a_part_of_the_machines_memory(available, free, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(available))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 400)
    assert free_bytes("mps") == free


def test_a_card_that_has_just_the_bytes_that_are_needed_holds_the_model():
    needed = needed_bytes(LLAMA_70B, torch.bfloat16, None, None, 1)
    assert count_cards(LLAMA_70B, torch.bfloat16, None, needed) == 1
    assert count_cards(LLAMA_70B, torch.bfloat16, None, needed - 1) == 2
