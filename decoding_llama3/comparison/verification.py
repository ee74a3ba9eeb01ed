"""Verify a checkpoint: our model, then another implementation, on one prompt, one model in memory at a time."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from decoding_llama3.benchmark.huggingface import check_transformers
from decoding_llama3.benchmark.machine import version
from decoding_llama3.comparison.huggingface import read_converted, read_directory, read_gguf
from decoding_llama3.comparison.meta import THEIR_SCALING, meta_model, missing_for_meta
from decoding_llama3.comparison.reading import Reading, Runner, read_prompt, runner_of
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.find import checkpoint_path, read_config
from decoding_llama3.inference.checkpoint.meta import CONFIG as META_CONFIG
from decoding_llama3.inference.checkpoint.meta import PARTS
from decoding_llama3.inference.load import load_model
from decoding_llama3.inference.memory import check_memory, free_bytes, needed_bytes

# Of a token's vector, relative to its size. Two implementations add in another order, so each of their sums is
# off by some units in the last place, which grow from layer to layer: float32 has 24 bits, bfloat16 8, float16 11.
# The 30 layers of SmolLM2 make 5e-6 of it in float32, 0.11 in bfloat16.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.025}


@dataclass(frozen=True)
class Oracle:
    """The other implementation: what to call it, the package that it is in, and what it cannot tell."""

    name: str
    package: str
    blind: str | None = None


@dataclass(frozen=True)
class Distance:
    """Of two readings at one place: the largest of any number, and the largest of any token's vector in relation
    to the size of that vector."""

    place: str
    largest: float
    relative: float


@dataclass(frozen=True)
class Verification:
    """What was found. `differences` are in the order of the computation, logits and far logits last.

    `n_equal` of `n_new` greedy tokens are equal from the first on. `is_tie`: where they part, the best two logits
    are as close as the tolerance, so that rounding decides.
    """

    config: LlamaConfig
    dtype: torch.dtype
    oracle: Oracle
    differences: list[Distance]
    n_equal: int
    n_new: int
    is_tie: bool

    @property
    def tolerance(self) -> float:
        """The largest relative difference that rounding may make."""
        return TOLERANCES[self.dtype]

    @property
    def first(self) -> Distance | None:
        """The first difference beyond the tolerance."""
        return next((d for d in self.differences if not d.relative <= self.tolerance), None)  # NaN is beyond it

    @property
    def tokens_agree(self) -> bool:
        """Whether all greedy tokens are equal, but for what rounding decides."""
        return self.n_equal == self.n_new or self.is_tie

    @property
    def is_equal(self) -> bool:
        """The verdict."""
        return self.first is None and self.tokens_agree


def choose_verify_dtype(config: LlamaConfig, device: str) -> torch.dtype:
    """float32, in which a fault stands out from rounding, where the model fits into memory so; else bfloat16."""
    fits = needed_bytes(config, torch.float32) <= free_bytes(device)
    return torch.float32 if fits else torch.bfloat16


def oracle_of(path: str | PathLike) -> Oracle:
    """The implementation that a checkpoint is compared with; raises ValueError if it is not installed."""
    place, config = checkpoint_path(path), read_config(path)
    if place.is_file():
        check_transformers()
        if version("gguf") is None:
            raise ValueError("a GGUF file is compared with what the package gguf reads: pip install gguf")
        return Oracle(
            "transformers' LlamaForCausalLM with the weights that the library gguf reads", "transformers"
        )
    if not _is_meta(place):
        check_transformers()
        return Oracle("transformers, which reads the directory itself", "transformers")
    lacking = missing_for_meta()
    if lacking is None and config.head_dim * config.n_heads == config.dim:
        return Oracle("Meta's own model in llama-models", "llama-models", _unscaled(config))
    check_transformers()
    what = "transformers' LlamaForCausalLM, filled through this package's own reader of Meta's layout"
    blind = (
        "names, settings and the order of rows in wq and wk were read by this package on both sides, so a fault "
        "in that reading would not show"
    )
    if lacking is not None:
        blind += f"; with {lacking} (pip install 'decoding-llama3[test]') Meta's own model tells them, too"
    return Oracle(what, "transformers", blind)


def verify_checkpoint(
    path: str | PathLike,
    ids: list[int],
    n_new: int = 50,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    report: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Compare our model with another implementation on the prompt `ids` and `n_new` greedy tokens after it.

    Raises ValueError for a checkpoint that cannot be loaded, or does not fit into memory, and where the other
    implementation is missing.
    """
    oracle, place, config = oracle_of(path), checkpoint_path(path), read_config(path)
    report(f"this package reads {path}")
    ours = read_prompt(runner_of(load_model(path, device, dtype)), ids, n_new, config.max_seq_len)
    _free(device)
    report(f"{oracle.package} reads {path}")
    check_memory(config, device, dtype)
    with _other(oracle, place, config, device, dtype, len(ids) + n_new) as runner:
        theirs = read_prompt(runner, ids, n_new, config.max_seq_len)
    return compare_readings(config, dtype, oracle, ours, theirs)


def compare_readings(
    config: LlamaConfig, dtype: torch.dtype, oracle: Oracle, ours: Reading, theirs: Reading
) -> Verification:
    """The differences of two readings of one prompt, and of their greedy tokens."""
    differences = [distance(key, ours.stream[key], theirs.stream[key]) for key in ours.stream]
    differences.append(distance("logits", ours.logits, theirs.logits))
    differences.append(distance("far logits", ours.far_logits, theirs.far_logits))
    pairs = list(zip(ours.new, theirs.new, strict=True))
    n_equal = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    lead = min(ours.leads[n_equal], theirs.leads[n_equal]) if n_equal < len(pairs) else 0.0
    is_tie = n_equal < len(pairs) and lead <= 2 * TOLERANCES[dtype] * theirs.logits.abs().max().item()
    return Verification(config, dtype, oracle, differences, n_equal, len(pairs), is_tie)


def distance(place: str, ours: Float[Tensor, "seq n"], theirs: Float[Tensor, "seq n"]) -> Distance:
    """Of two sets of vectors, one per token: the largest difference, and the largest in relation to a vector."""
    apart, size = (ours - theirs).norm(dim=-1), theirs.norm(dim=-1)
    relative = apart / size.clamp(min=torch.finfo(torch.float32).tiny)
    return Distance(place, (ours - theirs).abs().max().item(), relative.max().item())


@contextmanager
def _other(
    oracle: Oracle, place: Path, config: LlamaConfig, device: str, dtype: torch.dtype, room: int
) -> Iterator[Runner]:
    if oracle.package == "llama-models":
        with meta_model(place, config, device, dtype, room) as runner:
            yield runner
    elif place.is_file():
        yield read_gguf(place, device, dtype)
    else:
        yield (read_converted if _is_meta(place) else read_directory)(place, device, dtype)


def _is_meta(place: Path) -> bool:
    return (place / META_CONFIG).is_file() and any(place.glob(PARTS)) and not any(place.glob("*.safetensors"))


def _unscaled(config: LlamaConfig) -> str | None:
    if config.rope_scaling in (None, THEIR_SCALING):
        return None
    return (
        f"Meta's code scales RoPE by {THEIR_SCALING.factor:g} whatever the model, so it got this package's "
        f"frequencies, scaled by {config.rope_scaling.factor:g}, and a fault in these would not show"
    )


def _free(device: str) -> None:
    """What Python has let go of is given back before another model comes."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
