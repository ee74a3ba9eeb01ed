"""How time and memory grow with the context, the depth of the model and the length of a prompt."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from decoding_llama3.benchmark.engines import our_engine
from decoding_llama3.benchmark.lengths import check_lengths, clip_lengths, max_context
from decoding_llama3.benchmark.limits import Limits, measure_limits
from decoding_llama3.benchmark.measure import decode_seconds, make_prompt, prefill_seconds
from decoding_llama3.benchmark.models import random_model
from decoding_llama3.benchmark.work import decode_work, prefill_work, tensor_bytes
from decoding_llama3.transformer import Transformer

SCALING_LENGTHS = (128, 512, 1024, 2048, 4096, 8192)  # contexts and prompts, in tokens


@dataclass(frozen=True)
class ScalingPoint:
    """One measurement: `predicted` and `measured` are in `unit`, `x` counts the tokens or layers of `against`."""

    against: str
    x: int
    predicted: float | int
    measured: float | int
    unit: str


def measure_scaling(
    model: Transformer,
    contexts: Sequence[int] = SCALING_LENGTHS,
    depths: Sequence[int] | None = None,
    prompts: Sequence[int] = SCALING_LENGTHS,
    new_tokens: int = 16,
    limits: Limits | None = None,
    compile: bool = False,
) -> Iterator[ScalingPoint]:
    """How time and memory grow, each measurement beside its prediction, as they are made.

    Seconds per token against the context and against the depth (`depths`, default 1, 2, 4, ... layers, random
    weights of the same shape, at the shortest context); seconds of a prompt against its length; bytes of the
    cache's tensors against its length. Lengths that do not fit the model's context are left out; ValueError if no
    context is left. With `compile`, single tokens are read by a compiled step.
    """
    config, device, dtype = model.config, model.norm.weight.device, model.norm.weight.dtype
    prompts = clip_lengths(prompts, config.max_seq_len)
    contexts = clip_lengths(contexts, max_context(config, new_tokens))
    check_lengths(prompts, contexts, new_tokens, config)
    depths = depths or [2**i for i in range(config.n_layers.bit_length())]
    limits = limits or measure_limits(config, device, dtype)
    for n in contexts:
        yield _decode_point("context", n, model, n, new_tokens, limits, compile)
    for depth in depths:
        shallow = random_model(dataclasses.replace(config, n_layers=depth), device, dtype)
        yield _decode_point("depth", depth, shallow, contexts[0], new_tokens, limits, compile)
    engine = our_engine(model)
    for n in prompts:
        predicted = prefill_work(config, engine.weight_bytes, n).seconds(limits)
        measured = prefill_seconds(engine, make_prompt(config, n, device))
        yield ScalingPoint("prompt", n, predicted, measured, "seconds")
    for n in contexts:
        measured = tensor_bytes(*model.make_caches(batch=1, length=n))
        yield ScalingPoint("cache", n, config.kv_cache_bytes(n, dtype=dtype), measured, "bytes")


def _decode_point(
    against: str,
    x: int,
    model: Transformer,
    context: int,
    new_tokens: int,
    limits: Limits,
    compile: bool,
) -> ScalingPoint:
    like, engine = model.norm.weight, our_engine(model, compile)
    predicted = decode_work(model.config, engine.weight_bytes, context, like.dtype).seconds(limits)
    measured = decode_seconds(engine, context, new_tokens, like.device)
    return ScalingPoint(against, x, predicted, measured, "seconds per token")
