"""What the machine can hold, against sums done by hand."""

import collections

import psutil
import pytest
import torch
from conftest import shrink

import decoding_llama3 as dl
from decoding_llama3.inference.memory import free_bytes, largest_preset, needed_bytes, weight_bytes
from decoding_llama3.inference.quantize import quantize_int8

# 8,030,261,248 weights of 2 bytes and a cache of 8,192 tokens of 131,072 bytes are 17.13 GB; a tenth stays free.
NEEDED_8B = (2 * 8_030_261_248 + 8192 * 131_072) / 0.9
Memory = collections.namedtuple("Memory", "available")


@pytest.mark.parametrize(("free", "answer"), [(NEEDED_8B * 1.001, "8b"), (NEEDED_8B * 0.999, "mistral-7b")])
def test_the_largest_model_is_the_one_whose_weights_and_cache_fit(free, answer):
    found = largest_preset(torch.bfloat16, int(free))
    assert answer in found
    assert found.endswith("in bfloat16")


def test_int8_is_offered_where_only_that_fits():
    config = dl.LlamaConfig.from_preset("tiny")
    needed = needed_bytes(config, torch.bfloat16, "int8")
    assert needed == pytest.approx((5_573_888 * 1 + 512 * 2 * 6 * 2 * 32 * 2) / 0.9, rel=0.01)  # scales are small
    assert largest_preset(torch.bfloat16, needed) == "tiny in int8"
    assert largest_preset(torch.bfloat16, needed - 1) == "none, not even tiny"


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
