"""How fast a model runs, and what share that is of what the machine can do at all.

Two limits govern a language model. A decoded token reads every weight and the whole cache once, for two operations
a weight: memory decides. A prompt uses each weight for all its tokens: arithmetic decides. Both limits are
measured here, on the same threads or card as the model. `benchmark_runs` repeats it all in fresh processes.
"""

import dataclasses
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import psutil
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.compile import CompiledTransformer, compile_model, find_compiler
from decoding_llama3.inference.empty import empty_model
from decoding_llama3.inference.generator import Generator
from decoding_llama3.inference.memory import check_memory, free_bytes
from decoding_llama3.inference.quantize import int8_layer
from decoding_llama3.inference.sampling import sample
from decoding_llama3.presets import PRESETS
from decoding_llama3.transformer import Transformer

SHAPES = {  # beside the presets: sizes that a laptop runs in float32
    "125m": LlamaConfig(
        dim=768, n_layers=12, n_heads=12, n_kv_heads=4, hidden_dim=2048, vocab_size=32_000, max_seq_len=8192
    ),
    "1.5b": dataclasses.replace(LlamaConfig.from_preset("llama3.2-1b"), tie_embeddings=False),
}
FORMULAS = {
    "decode": "(bytes of the weights + bytes of the cache at that context) / seconds a token / read bandwidth",
    "prefill": "FLOPs of the prompt / its seconds / matrix-product rate",
}
GROWTH = (128, 512, 1024, 2048, 4096, 8192)  # contexts and prompt lengths of `growth`, in tokens
N_GREEDY = 64  # tokens of the text by which engines are compared
WARM_UP = 3  # steps before those that are timed: CUDA graphs are recorded in the second
ROWS = 512  # tokens in the products that give the matrix-product rate


@dataclass(frozen=True)
class Limits:
    """What the machine does at best: bytes a second and floating-point operations a second."""

    read_bytes_per_s: float
    read_by: str  # the reduction that read fastest
    copy_bytes_per_s: float  # read and written bytes both counted
    flops_per_s: float


@dataclass(frozen=True)
class Work:
    """What must be done at least: bytes to read from memory, floating-point operations to carry out."""

    n_bytes: int
    flops: int

    def seconds(self, limits: Limits) -> float:
        """The time of the slower of the two, the other running beside it."""
        return max(self.n_bytes / limits.read_bytes_per_s, self.flops / limits.flops_per_s)

    def bound_by(self, limits: Limits) -> str:
        reading, computing = self.n_bytes / limits.read_bytes_per_s, self.flops / limits.flops_per_s
        return "memory" if reading > computing else "arithmetic"


@runtime_checkable  # for the typed test run
class Reader(Protocol):
    """A model in the middle of a text."""

    def read(self, tokens: Int[Tensor, "1 seq"]) -> Float[Tensor, " vocab"]:
        """Logits after the last of `tokens`, which continue what was read before."""


@dataclass(frozen=True)
class Engine:
    """A model as the benchmark sees it.

    `start(context, more)` is a text of which `context` tokens have been read and at most `more` will be;
    `weight_bytes` are the bytes of all weights that a token reads.
    """

    start: Callable[[int, int], Reader]
    weight_bytes: int


@dataclass(frozen=True)
class Rung:
    """One way to decode: what the limits predict and what was measured, in seconds a token."""

    name: str
    predicted_seconds: float
    bound_by: str
    measured_seconds: float


@dataclass(frozen=True)
class Point:
    """One measurement of `growth`: `predicted` and `measured` are in `unit`, `x` counts tokens or layers."""

    against: str
    x: int
    predicted: float | int
    measured: float | int
    unit: str


def now(device: str | torch.device) -> float:
    """Seconds of a clock that first waits until the device has done all it was given."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def timed(call: Callable, device: str | torch.device) -> float:
    """Seconds of one call."""
    start = now(device)
    call()
    return now(device) - start


def median_seconds(call: Callable, device: str | torch.device, repeats: int = 3, patience: float = 10.0) -> float:
    """Median seconds of `call`, after one run to warm up; no further repeat once `patience` seconds are spent."""
    call()
    seconds = [timed(call, device)]
    while len(seconds) < repeats and sum(seconds) < patience:
        seconds.append(timed(call, device))
    return statistics.median(seconds)


def measure_limits(
    config: LlamaConfig, device: str | torch.device, dtype: torch.dtype, n_bytes: int | None = None
) -> Limits:
    """The machine's limits, in float32 for memory and in `dtype` at the model's own shapes for arithmetic.

    Memory is read from a matrix of `n_bytes` (default: 512 MiB, on a card 2 GiB, at most an eighth of what is
    free), far beyond any cache, by the fastest of three reductions. The matrix-product rate is that of the seven
    matrices of a block on 512 tokens. Each is the best of five.
    """
    kind = torch.device(device).type
    n_bytes = n_bytes or min(2**31 if kind == "cuda" else 2**29, free_bytes(device) // 8)
    matrix = torch.ones(max(1, n_bytes // 2**14), 2**12, device=device)
    flat, vector = matrix.view(-1), matrix[0].clone()
    ways = {
        "sum": matrix.sum,
        "dot product": partial(torch.dot, flat, flat),
        "matrix times vector": partial(torch.mv, matrix, vector),
    }
    seconds = {name: _best_seconds(call, device) for name, call in ways.items()}
    fastest = min(seconds, key=seconds.get)
    copying = _best_seconds(partial(torch.empty_like(matrix).copy_, matrix), device)
    return Limits(
        read_bytes_per_s=matrix.nbytes / seconds[fastest],
        read_by=fastest,
        copy_bytes_per_s=2 * matrix.nbytes / copying,
        flops_per_s=_product_rate(config, device, dtype),
    )


def mean_limits(before: Limits, after: Limits) -> Limits:
    """Their mean: what the machine did while something was measured in between."""
    names = ("read_bytes_per_s", "copy_bytes_per_s", "flops_per_s")
    means = {name: (getattr(before, name) + getattr(after, name)) / 2 for name in names}
    return dataclasses.replace(before, **means)


def tensor_bytes(*modules: nn.Module) -> int:
    """Bytes of all parameters and buffers; those that a module shares within itself are counted once."""
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    return sum(tensor.nbytes for tensor in tensors)


def read_bytes(model: Transformer) -> int:
    """Bytes of weights that one token reads: layers, norms and output, in int8 with their scales.

    Of the embedding table a token reads one row, which is not counted; where it is the output too, all of it is.
    """
    return tensor_bytes(model.layers, model.norm, model.output)


def block_shapes(config: LlamaConfig) -> list[tuple[int, int]]:
    """(rows, columns) of the seven matrices of a block."""
    dim, hidden, kv = config.dim, config.hidden_dim, config.n_kv_heads * config.head_dim
    return [(dim, dim), (kv, dim), (kv, dim), (dim, dim), (hidden, dim), (hidden, dim), (dim, hidden)]


def count_flops(config: LlamaConfig, tokens: int, before: int = 0) -> int:
    """Floating-point operations that read `tokens` after `before` others, logits after the last one only.

    Two a weight and token for the matrices. In attention two a feature of every head for each pair of a token
    and one it may see, in the scores and again in the values: the causal half, not the whole square.
    """
    matrices = 2 * tokens * sum(rows * columns for rows, columns in block_shapes(config))
    pairs = tokens * before + tokens * (tokens + 1) // 2
    return config.n_layers * (matrices + 4 * config.dim * pairs) + 2 * config.dim * config.vocab_size


def decode_work(config: LlamaConfig, weight_bytes: int, context: int, dtype: torch.dtype) -> Work:
    """What one more token takes after `context` others: every weight and the whole cache are read."""
    cache = config.kv_cache_bytes(context, dtype=dtype)
    return Work(weight_bytes + cache, count_flops(config, 1, before=context))


def prefill_work(config: LlamaConfig, weight_bytes: int, tokens: int) -> Work:
    """What a prompt takes: every weight is read once, and used for each token."""
    return Work(weight_bytes, count_flops(config, tokens))


def preset_config(name: str) -> LlamaConfig:
    """The shape of a preset, or of "125m" and "1.5b", which are nobody's models."""
    if name not in SHAPES and name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join([*SHAPES, *PRESETS])}")
    return SHAPES[name] if name in SHAPES else LlamaConfig.from_preset(name)


def random_model(
    config: LlamaConfig,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    compile: bool = False,
    seed: int = 0,
) -> Transformer:
    """A model of full shape with random weights, made tensor by tensor where and as it is to be.

    Matrices have a standard deviation of 0.02, norms are 1: nothing overflows in float16. With
    `quantize="int8"` rows are drawn as int8, so that no wider copy of them ever exists. Raises ValueError where
    memory does not suffice.
    """
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize is None or 'int8', found {quantize!r}")
    check_memory(config, device, dtype, quantize)
    model = empty_model(config)
    generator, made = torch.Generator(device).manual_seed(seed), {}  # by weight: tied ones stay one
    for module in list(model.modules()):
        for name, child in module.named_children():
            weight = getattr(child, "weight", None)
            if weight is None:
                continue
            in_int8 = quantize == "int8" and weight.dim() == 2
            if weight not in made:
                made[weight] = (_random_int8 if in_int8 else _random)(weight.shape, dtype, generator)
            if in_int8:
                setattr(module, name, int8_layer(child, *made[weight], dtype))
            else:
                child.weight = made[weight]
    if compile:
        model = compile_model(model)
    return model.eval()


def our_engine(model: Transformer) -> Engine:
    """This package's model as an engine."""

    def start(context: int, more: int) -> Generator:
        generator = Generator(model, isinstance(model, CompiledTransformer), context + more)
        generator.past = [0] * context  # the caches stay zeros there, which take as long to read as any numbers
        return generator

    return Engine(start, read_bytes(model))


def read_greedily(
    reader: Reader, tokens: Int[Tensor, "1 seq"], n: int, device: str | torch.device
) -> Iterator[tuple[int, float]]:
    """`n` times the most probable next token and the seconds until it was known, as in `generate`."""
    for _ in range(n):
        start = now(device)
        token = sample(reader.read(tokens), 0.0, 1.0, None)
        chosen, tokens = token.item(), token[None]
        yield chosen, now(device) - start


def decode_seconds(engine: Engine, context: int, new_tokens: int, device: str | torch.device) -> float:
    """Median seconds of a token after `context` others, over `new_tokens` steps, three more to warm up."""
    n = WARM_UP + new_tokens
    reader, token = engine.start(context, max(n, N_GREEDY)), torch.zeros(1, 1, dtype=torch.int64, device=device)
    return statistics.median([seconds for _, seconds in read_greedily(reader, token, n, device)][WARM_UP:])


def prefill_seconds(engine: Engine, prompt: Int[Tensor, "1 seq"]) -> float:
    """Median seconds until the logits after `prompt` are known."""
    return median_seconds(lambda: engine.start(0, prompt.shape[1]).read(prompt), prompt.device)


def make_prompt(config: LlamaConfig, length: int, device: str | torch.device) -> Int[Tensor, "1 length"]:
    """Random tokens, the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.vocab_size, (1, length), generator=generator).to(device)


def measure(
    engine: Engine,
    config: LlamaConfig,
    device: str | torch.device,
    prompts: Sequence[int],
    contexts: Sequence[int],
    new_tokens: int,
) -> dict:
    """Seconds of an engine that has read nothing yet.

    "first_token": a prompt of the smallest length (less where 64 tokens would not fit after it), cold.
    "first_step": the token after it, in which a compiled engine compiles. "prefill" and "decode": by length.
    "greedy": up to 64 tokens after that first prompt.
    """
    length = max(1, min(*prompts, config.max_seq_len - N_GREEDY))
    n, more = min(N_GREEDY, config.max_seq_len - length), max(N_GREEDY, WARM_UP + new_tokens)
    reader = engine.start(0, length + more)
    text = list(read_greedily(reader, make_prompt(config, length, device), n, device))
    (_, first_token), (_, first_step) = text[:2]
    return {
        "first_token": first_token,
        "first_step": first_step,
        "prefill": {str(n): prefill_seconds(engine, make_prompt(config, n, device)) for n in prompts},
        "decode": {str(n): decode_seconds(engine, n, new_tokens, device) for n in contexts},
        "greedy": [token for token, _ in text],
    }


def with_speeds(seconds: dict, engine: Engine, config: LlamaConfig, dtype: torch.dtype, limits: Limits) -> dict:
    """`measure`'s seconds as speeds in tokens a second, each also as a fraction of its limit (see FORMULAS)."""
    prefill, decode = {}, {}
    for n, took in seconds["prefill"].items():
        flops = prefill_work(config, engine.weight_bytes, int(n)).flops
        fraction = flops / took / limits.flops_per_s
        prefill[n] = {"seconds": took, "tokens_per_s": int(n) / took, "flops": flops, "fraction": fraction}
    for n, took in seconds["decode"].items():
        n_bytes = decode_work(config, engine.weight_bytes, int(n), dtype).n_bytes
        fraction = n_bytes / took / limits.read_bytes_per_s
        decode[n] = {"seconds": took, "tokens_per_s": 1 / took, "bytes": n_bytes, "fraction": fraction}
    return seconds | {"prefill": prefill, "decode": decode}


def speed_ladder(
    load: Callable[..., Transformer],
    context: int,
    new_tokens: int = 16,
    limits: Limits | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Rung]:
    """Four ways to decode a token after `context` others, each faster than the one before.

    `load(quantize=..., compile=...)` gives the model, for example `partial(load_model, "tiny", "cpu",
    torch.float32)`. "full recompute" has no cache and reads the whole text anew for each token. Compiled rungs
    are left out where there is no compiler. The prediction is the slower of reading and computing.
    """
    model = load()
    config, like = model.config, model.norm.weight
    check_lengths((), (context,), new_tokens, config)
    limits = limits or measure_limits(config, like.device, like.dtype)
    tell("full recompute")
    anew = prefill_work(config, read_bytes(model), context + 1)
    seconds = median_seconds(partial(_recompute, model, context + 1), like.device, new_tokens)
    rungs = [Rung("full recompute", anew.seconds(limits), anew.bound_by(limits), seconds)]
    ways = {"KV cache": {}, "compiled step": {"compile": True}, "int8": {"quantize": "int8", "compile": True}}
    for name, how in ways.items():
        if "compile" in how and lacks_compiler(like.device):
            continue
        tell(name)
        model = None  # before the next one is loaded
        model = load(**how)
        engine = our_engine(model)
        work = decode_work(config, engine.weight_bytes, context, like.dtype)
        seconds = decode_seconds(engine, context, new_tokens, like.device)
        rungs.append(Rung(name, work.seconds(limits), work.bound_by(limits), seconds))
    return rungs


def growth(
    model: Transformer,
    contexts: Sequence[int] = GROWTH,
    depths: Sequence[int] | None = None,
    prompts: Sequence[int] = GROWTH,
    new_tokens: int = 16,
    limits: Limits | None = None,
) -> Iterator[Point]:
    """How time and memory grow, each measurement beside its prediction, as they are made.

    Seconds a token against the context and against the depth (`depths`, default 1, 2, 4, ... layers, random
    weights of the same shape, at the shortest context); seconds of a prompt against its length; bytes of the
    cache's tensors against its length. Lengths that do not fit the model's context are left out. The tokens of
    a compiled model come from its compiled step.
    """
    config, like = model.config, model.norm.weight
    device, dtype = like.device, like.dtype
    prompts, contexts = fitting(prompts, config.max_seq_len), fitting(contexts, room(config, new_tokens))
    check_lengths(prompts, contexts, new_tokens, config)
    depths = depths or [2**i for i in range(config.n_layers.bit_length())]
    limits = limits or measure_limits(config, device, dtype)
    decode = partial(_decode_point, new_tokens=new_tokens, limits=limits)
    yield from (decode("context", n, model, n) for n in contexts)
    for depth in depths:
        shallow = dataclasses.replace(config, n_layers=depth)
        shallow = random_model(shallow, device, dtype, compile=isinstance(model, CompiledTransformer))
        yield decode("depth", depth, shallow, contexts[0])
    engine = our_engine(model)
    for n in prompts:
        predicted = prefill_work(config, engine.weight_bytes, n).seconds(limits)
        yield Point("prompt", n, predicted, prefill_seconds(engine, make_prompt(config, n, device)), "seconds")
    for n in contexts:
        found = tensor_bytes(*model.make_caches(batch=1, length=n))
        yield Point("cache", n, config.kv_cache_bytes(n, dtype=dtype), found, "bytes")


def fitting(lengths: Iterable[int], longest: int) -> tuple[int, ...]:
    """Those that are no longer than `longest`, in increasing order."""
    return tuple(sorted({n for n in lengths if n <= longest}))


def room(config: LlamaConfig, new_tokens: int) -> int:
    """The longest context after which `new_tokens` can be timed."""
    return config.max_seq_len - WARM_UP - new_tokens


def check_lengths(prompts: Sequence[int], contexts: Sequence[int], new_tokens: int, config: LlamaConfig) -> None:
    """Raise ValueError unless each length fits the model's context, and there is a context at all."""
    if new_tokens < 1:
        raise ValueError(f"new tokens must be 1 or more, found {new_tokens}")
    for what, lengths, longest in (
        ("prompts", prompts, config.max_seq_len),
        ("contexts", contexts, room(config, new_tokens)),
    ):
        if wrong := [n for n in lengths if not 1 <= n <= longest]:
            raise ValueError(f"{what} of this model have 1 to {longest} tokens here, found {wrong[0]}")


def lacks_compiler(device: str | torch.device) -> bool:
    """Whether `torch.compile` cannot work on `device`, for want of a C++ compiler."""
    return torch.device(device).type == "cpu" and find_compiler() is None


def forget_host_peak() -> None:
    """Start the process's peak memory anew; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # elsewhere the peak is that of the whole process


def host_peak_bytes() -> int:
    """The most memory of the host that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return 1024 * int(found[1])
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@torch.inference_mode()
def _recompute(model: Transformer, length: int) -> Tensor:
    tokens = make_prompt(model.config, length, model.norm.weight.device)
    return model.output(model.hidden(tokens)[:, -1])


def _decode_point(
    against: str, x: int, model: Transformer, context: int, new_tokens: int, limits: Limits
) -> Point:
    like, engine = model.norm.weight, our_engine(model)
    predicted = decode_work(model.config, engine.weight_bytes, context, like.dtype).seconds(limits)
    measured = decode_seconds(engine, context, new_tokens, like.device)
    return Point(against, x, predicted, measured, "seconds a token")


def _best_seconds(call: Callable, device: str | torch.device, repeats: int = 5) -> float:
    """Fewest seconds of a call; short ones are timed in rows of 20 ms, so that starting them costs nothing."""
    call()
    n = math.ceil(0.02 / max(timed(call, device), 1e-6))

    def row() -> None:
        for _ in range(n):
            call()

    return min(timed(row, device) for _ in range(repeats)) / n


def _product_rate(config: LlamaConfig, device: str | torch.device, dtype: torch.dtype) -> float:
    seconds, shapes = 0.0, block_shapes(config)
    for rows, columns in shapes:  # one at a time: a block of the 405B has 6 GB
        x, weight = (torch.randn(n, columns, device=device, dtype=dtype) for n in (ROWS, rows))
        seconds += _best_seconds(partial(F.linear, x, weight), device)
    return 2 * ROWS * sum(rows * columns for rows, columns in shapes) / seconds


def _random(shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> nn.Parameter:
    weight = torch.ones(shape, dtype=dtype, device=generator.device)
    if len(shape) > 1:
        weight.normal_(std=0.02, generator=generator)
    return nn.Parameter(weight, requires_grad=False)


def _random_int8(shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    device = generator.device
    rows = torch.randint(-127, 128, shape, dtype=torch.int8, device=device, generator=generator)
    return rows, torch.full(shape[:1], 0.02 / 73.3, dtype=dtype, device=device)  # 73.3: their standard deviation
