"""Shapes in signatures are executed when TYPED=1: jaxtyping checks them through beartype."""

import os

if os.environ.get("TYPED") == "1":
    from jaxtyping import install_import_hook

    install_import_hook("decoding_llama3", "beartype.beartype")

import dataclasses
import random

import pytest
import torch
from real_cells import pytest_collection_modifyitems  # noqa: F401, a hook

import decoding_llama3 as dl
from decoding_llama3.experiments.corpus import Corpus
from decoding_llama3.inference.checkpoint.named import SMOLLM2
from decoding_llama3.inference.data import cache_directory

WORDS = ["king", "queen", "bird", "golden", "apple", "said", "went", "the", "a", "wood", "and", "old"]


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)
    torch.set_num_threads(2)


def shrink(name: str) -> dl.LlamaConfig:
    """A preset with two narrow layers: its head sharing, RoPE, tying and eps stay; no two axes are equal."""
    config = dl.LlamaConfig.from_preset(name)
    queries_per_kv = min(config.queries_per_kv, 4)
    return dataclasses.replace(
        config,
        dim=3 * queries_per_kv * 16,
        n_layers=2,
        n_heads=3 * queries_per_kv,
        n_kv_heads=3,
        head_dim=16,
        hidden_dim=176,
        vocab_size=320,
    )


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights large enough to see a fault: std 1/sqrt(inputs), norm weights around 1 but all different."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            values = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * values if weight.dim() == 1 else values * weight.shape[1] ** -0.5)
    return model.eval()


@pytest.fixture(params=dl.PRESETS)
def shrunk(request) -> dl.LlamaConfig:
    return shrink(request.param)


@pytest.fixture
def model() -> dl.Transformer:
    return randomize(dl.Transformer(shrink("llama3-8b")))


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture
def folder(tmp_path):
    """Three files of invented lines; the held-out one has words that no other has."""
    draw, folder = random.Random(0), tmp_path / "texts"
    folder.mkdir()
    for name, words, n in (("a", WORDS, 120), ("b", WORDS, 120), ("z", ["dragon", "unseen", "elsewhere"], 6)):
        lines = (" ".join(draw.choices(words, k=draw.randint(4, 12))) + "." for _ in range(n))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def corpus(folder):
    # A text of 12 words has fewer than 88 merges in it: letters at random supply the rest.
    draw = random.Random(1)
    letters = ("".join(draw.choices("abcdefgh ", k=40)).strip() for _ in range(100))
    (folder / "b.txt").write_text((folder / "b.txt").read_text() + "\n".join(letters) + "\n")
    return Corpus.read(folder, "z.txt")


@pytest.fixture(scope="session")
def smollm2():
    """The file of SmolLM2. Where it was not downloaded its tests are skipped, and with REAL=1 they fail."""
    file = cache_directory() / "smollm2" / SMOLLM2
    if not file.is_file():
        (pytest.fail if os.environ.get("REAL") == "1" else pytest.skip)("run decoding-llama3 download smollm2")
    return file
