"""Bytes and operations that a token needs, against counts made otherwise."""

import dataclasses
import json

import pytest
import torch
from conftest import randomize, shrink
from torch.utils.flop_counter import FlopCounterMode

import decoding_llama3 as dl
from decoding_llama3.benchmark.huggingface import checkpoint_engine
from decoding_llama3.benchmark.limits import Limits
from decoding_llama3.benchmark.models import preset_config, random_model
from decoding_llama3.benchmark.work import Work, count_flops, decode_work, read_bytes
from decoding_llama3.inference.checkpoint.export import save_huggingface

LIMITS = Limits(read_bytes_per_s=1e9, read_by="sum", copy_bytes_per_s=1e9, flops_per_s=1e12)


def weights_in(folder) -> dict[str, int]:
    """Bytes of each tensor, by the header of the file."""
    with open(folder / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    offsets = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: end - start for name, (start, end) in offsets.items()}


@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])  # untied, tied
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_reads_every_weight_of_the_file_but_an_embedding_that_is_no_output(preset, dtype, tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink(preset))), tmp_path, dtype)
    stored = weights_in(tmp_path)
    expected = sum(stored.values())
    if preset == "llama3-8b":
        expected -= stored["model.embed_tokens.weight"]
    assert read_bytes(dl.load_model(tmp_path, dtype=dtype)) == expected
    assert checkpoint_engine(tmp_path, "cpu", dtype, compile=False).weight_bytes == expected


@pytest.mark.parametrize("tied", [True, False])
def test_int8_weights_are_counted_in_int8_with_their_scales(tied):
    config = dataclasses.replace(shrink("llama3-8b"), tie_embeddings=tied)
    model = random_model(config, dtype=torch.bfloat16, quantize="int8")
    scale = model.output.scale.itemsize
    dim, kv, hidden, vocab = 192, 48, 176, 320  # of the shrunk 8B
    layer = 2 * dim * dim + 2 * kv * dim + 3 * hidden * dim  # bytes
    layer += scale * (2 * dim + 2 * kv + 2 * hidden + dim)  # a scale for each row
    layer += 2 * 2 * dim  # norms
    assert read_bytes(model) == 2 * layer + 2 * dim + vocab * dim + scale * vocab


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_the_operations_of_a_prompt_are_those_that_torch_counts_and_the_causal_half(model, tokens):
    config = model.config
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.output(model.hidden(torch.zeros(1, tokens, dtype=torch.int64))[:, -1])
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    seen = sum(1 for token in range(tokens) for other in range(tokens) if other <= token)
    attention = 2 * 2 * config.n_layers * config.n_heads * config.head_dim * seen  # scores and values
    assert count_flops(config, tokens) == products + attention


def test_the_operations_of_a_prompt_are_those_of_its_two_halves():
    config = preset_config("125m")
    output = 2 * config.dim * config.vocab_size  # asked for once, not twice
    halves = count_flops(config, 300) + count_flops(config, 212, before=300)
    assert halves - output == count_flops(config, 512)


def test_a_token_of_the_8b_reads_15_gigabytes_and_the_cache():
    """131,072 bytes of cache per token; an embedding of 128,256 x 4,096; all in bfloat16."""
    config = dl.LlamaConfig.from_preset("llama3-8b")
    with torch.device("meta"):
        weights = read_bytes(dl.Transformer(config).to(torch.bfloat16))
    assert weights == 2 * (8_030_261_248 - 128_256 * 4096)
    assert decode_work(config, weights, 1000, torch.bfloat16).n_bytes == weights + 131_072_000


def test_the_slower_of_reading_and_computing_is_predicted():
    assert Work(3 * 10**9, 10**12).seconds(LIMITS) == 3.0
    assert Work(3 * 10**9, 10**12).bound_by(LIMITS) == "memory"
    assert Work(10**9, 5 * 10**12).seconds(LIMITS) == 5.0
    assert Work(10**9, 5 * 10**12).bound_by(LIMITS) == "arithmetic"
