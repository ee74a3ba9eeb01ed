"""How long an engine takes: the first token, prompts (prefill), and tokens after a context (decode)."""

import statistics
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

import decoding_llama3.benchmark.clock as clock
from decoding_llama3.benchmark.engines import Engine, Session
from decoding_llama3.benchmark.lengths import WARM_UP
from decoding_llama3.benchmark.limits import Limits
from decoding_llama3.benchmark.work import decode_work, prefill_work
from decoding_llama3.config import LlamaConfig

FORMULAS = {
    "decode": "(bytes of the weights + bytes of the cache at that context) / seconds per token / read bandwidth",
    "prefill": "FLOPs of the prompt / its seconds / matrix-product rate",
}
N_GREEDY = 64  # tokens of the text by which engines are compared


def measure_engine(
    engine: Engine,
    config: LlamaConfig,
    device: str | torch.device,
    prompts: Sequence[int],
    contexts: Sequence[int],
    new_tokens: int,
    calls: int | None = None,
) -> Iterator[dict]:
    """The seconds measured so far of an engine that has read nothing yet: once per length, the last time complete.

    "first_token": a prompt of the smallest length (less where 64 tokens would not fit after it), cold.
    "first_step": the token after it, in which a compiled engine compiles. "prefill" and "decode": by length.
    "greedy": up to 64 tokens after that first prompt. Prompts are read `calls` times, or for two seconds without.
    """
    length = max(1, min(*prompts, config.max_seq_len - N_GREEDY))
    n, max_new = min(N_GREEDY, config.max_seq_len - length), max(N_GREEDY, WARM_UP + new_tokens)
    session = engine.start(0, length + max_new)
    text = list(read_greedily(session, make_prompt(config, length, device), n, device))
    seconds = {
        "first_token": text[0][1],
        "first_step": text[1][1],
        "prefill": {},
        "decode": {},
        "greedy": [token for token, _ in text],
    }
    yield seconds
    for n in prompts:
        seconds["prefill"][str(n)] = prefill_seconds(engine, make_prompt(config, n, device), calls)
        yield seconds
    for n in contexts:
        seconds["decode"][str(n)] = decode_seconds(engine, n, new_tokens, device)
        yield seconds


def read_greedily(
    session: Session, tokens: Int[Tensor, "1 seq"], n: int, device: str | torch.device
) -> Iterator[tuple[int, float]]:
    """`n` times the most probable next token and the seconds until it was known, as in `generate`."""
    for _ in range(n):
        start = clock.now(device)
        token = session.read(tokens).argmax(dim=-1, keepdim=True)
        chosen, tokens = int(token.item()), token[None]
        yield chosen, clock.now(device) - start


def prefill_seconds(engine: Engine, prompt: Int[Tensor, "1 seq"], calls: int | None = None) -> float:
    """Median seconds until the token after `prompt` is known, of as many `calls` or of those in two seconds."""

    def read() -> float:
        return engine.start(0, prompt.shape[1]).read(prompt).argmax().item()

    if calls is not None:
        return clock.median_of(read, prompt.device, calls)
    return clock.median_seconds(read, prompt.device)


def decode_seconds(engine: Engine, context: int, new_tokens: int, device: str | torch.device) -> float:
    """Median seconds per token after `context` others, over `new_tokens` steps, three more to warm up."""
    n = WARM_UP + new_tokens
    session, token = engine.start(context, max(n, N_GREEDY)), torch.zeros(1, 1, dtype=torch.int64, device=device)
    return statistics.median([seconds for _, seconds in read_greedily(session, token, n, device)][WARM_UP:])


def make_prompt(config: LlamaConfig, length: int, device: str | torch.device) -> Int[Tensor, "1 length"]:
    """Random tokens, the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.vocab_size, (1, length), generator=generator).to(device)


def with_speeds(seconds: dict, weight_bytes: int, config: LlamaConfig, dtype: torch.dtype, limits: Limits) -> dict:
    """The measured seconds as tokens per second, too, each also as a fraction of its limit (see FORMULAS)."""
    prefill, decode = {}, {}
    for n, took in seconds["prefill"].items():
        flops = prefill_work(config, weight_bytes, int(n)).flops
        fraction = flops / took / limits.flops_per_s
        prefill[n] = {"seconds": took, "tokens_per_s": int(n) / took, "flops": flops, "fraction": fraction}
    for n, took in seconds["decode"].items():
        n_bytes = decode_work(config, weight_bytes, int(n), dtype).n_bytes
        fraction = n_bytes / took / limits.read_bytes_per_s
        decode[n] = {"seconds": took, "tokens_per_s": 1 / took, "bytes": n_bytes, "fraction": fraction}
    return seconds | {"prefill": prefill, "decode": decode}
