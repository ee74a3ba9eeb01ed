"""Four ways to decode a token, each faster than the one before: predicted by the limits, and measured."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import decoding_llama3.benchmark.clock as clock
from decoding_llama3.benchmark.engines import our_engine
from decoding_llama3.benchmark.lengths import check_lengths
from decoding_llama3.benchmark.limits import Limits, measure_limits
from decoding_llama3.benchmark.measure import decode_seconds, make_prompt
from decoding_llama3.benchmark.work import Work, decode_work, prefill_work, read_bytes
from decoding_llama3.inference.compile import can_compile
from decoding_llama3.transformer import Transformer

CACHED = {  # arguments of `load`, and whether the step is compiled
    "KV cache": ({}, False),
    "compiled step": ({}, True),
    "int8": ({"quantize": "int8"}, True),
}


@dataclass(frozen=True)
class Stage:
    """One way to decode: what the limits predict and what was measured, in seconds per token."""

    name: str
    predicted_seconds: float
    bound_by: str
    measured_seconds: float


def speed_ladder(
    load: Callable[..., Transformer],
    context: int,
    new_tokens: int = 16,
    limits: Limits | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Stage]:
    """Four ways to decode a token after `context` others, each faster than the one before.

    `load()` and `load(quantize="int8")` give the model, for example `partial(load_model, "tiny", "cpu",
    torch.float32)`. "full recompute" has no cache and reads the whole text anew for each token. Compiled stages
    are left out where there is no compiler. The prediction is the slower of reading and computing. A context that
    does not fit the model raises ValueError.
    """
    model = load()
    config, device, dtype = model.config, model.norm.weight.device, model.norm.weight.dtype
    check_lengths((), (context,), new_tokens, config)
    limits = limits or measure_limits(config, device, dtype)
    report("full recompute")
    work = prefill_work(config, read_bytes(model), context + 1)
    seconds = clock.median_seconds(partial(_recompute, model, context + 1), device)
    stages = [_stage("full recompute", work, limits, seconds)]
    del model  # before the next one is loaded
    for name, (how, compile) in CACHED.items():
        if compile and not can_compile(device):
            continue
        report(name)
        stages.append(_cached_stage(name, load(**how), compile, context, new_tokens, limits))
    return stages


def _cached_stage(
    name: str, model: Transformer, compile: bool, context: int, new_tokens: int, limits: Limits
) -> Stage:
    like, engine = model.norm.weight, our_engine(model, compile)
    work = decode_work(model.config, engine.weight_bytes, context, like.dtype)
    return _stage(name, work, limits, decode_seconds(engine, context, new_tokens, like.device))


def _stage(name: str, work: Work, limits: Limits, seconds: float) -> Stage:
    return Stage(name, work.seconds(limits), work.bound_by(limits), seconds)


@torch.inference_mode()
def _recompute(model: Transformer, length: int) -> Tensor:
    tokens = make_prompt(model.config, length, model.norm.weight.device)
    return model.output(model.hidden(tokens)[:, -1])
