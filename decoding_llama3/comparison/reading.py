"""What a model of any implementation makes of one prompt: stream, logits, tokens. Kept when the model is gone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.inference.generator import generate
from decoding_llama3.inspect.probe import recording
from decoding_llama3.transformer import Transformer

FAR = 2048  # positions


@dataclass(frozen=True)
class Runner:
    """A loaded model, and how it is run.

    `norms` are the names of the modules that read the residual stream, in order: two in each layer, and the last.
    `logits` takes tokens (1, seq) and positions (seq,); `greedy` continues a list of ids by some more.
    """

    model: nn.Module
    norms: Sequence[str]
    logits: Callable[[Tensor, Tensor], Tensor]
    greedy: Callable[[list[int], int], list[int]]


@dataclass(frozen=True)
class Reading:
    """Everything in float32 on the CPU.

    `stream` is the residual stream by the keys of `inspect.probe.residual_stream`, and "norm", after the last one.
    `logits` are those at the positions 0, 1, ..., `far_logits` those of the same tokens at `far_positions`.
    `new` are the tokens chosen greedily; `leads` says by how much the logit of each exceeds that of the second.
    """

    stream: dict[str, Float[Tensor, "seq dim"]]
    logits: Float[Tensor, "seq vocab"]
    far_logits: Float[Tensor, "seq vocab"]
    new: list[int]
    leads: list[float]


def runner_of(model: Transformer) -> Runner:
    """A model of this package."""
    norms = [f"layers.{i}.{norm}" for i in range(len(model.layers)) for norm in ("attention_norm", "ffn_norm")]
    return Runner(model, [*norms, "norm"], model, lambda ids, n: list(generate(model, ids, n)))


@torch.inference_mode()
def read_prompt(runner: Runner, ids: list[int], n_new: int, context: int) -> Reading:
    """Run a model on a prompt, which fits into its `context`, and continue it by `n_new` tokens or as many as fit.

    Raises ValueError where the logits are not finite.
    """
    device = next(runner.model.parameters()).device
    tokens, near = torch.tensor([ids], device=device), torch.arange(len(ids), device=device)
    with recording(runner.model, runner.norms) as record:
        logits = _kept(runner.logits(tokens, near))
    if not logits.isfinite().all():
        raise ValueError("the model's logits are not finite: its weights are damaged, or its dtype is too narrow")
    read = [_kept(record.inputs[name]) for name in runner.norms]
    stream = dict(zip(stream_keys(len(runner.norms) // 2), read, strict=True))
    stream["norm"] = _kept(record.outputs[runner.norms[-1]])
    far = _kept(runner.logits(tokens, far_positions(len(ids), context).to(device)))
    new = runner.greedy(ids, min(n_new, context - len(ids)))
    leads = _leads(runner, [*ids, *new], len(new))
    return Reading(stream, logits, far, new, leads)


def stream_keys(n_layers: int) -> list[str]:
    """The places where the residual stream is looked at, in order, by the names of `residual_stream`."""
    return ["embedding", *(f"{i}.{part}" for i in range(n_layers) for part in ("attention", "feed_forward"))]


def far_positions(n: int, context: int) -> Int[Tensor, " n"]:
    """`n` positions far apart, at the end of a context: what scales RoPE shows over long distances only.

    They lie within 2,048: over more, trained models read so few tokens so strangely that they blow rounding up.
    """
    step = (min(context, FAR) - 1) // max(n - 1, 1)
    return context - 1 - step * torch.arange(n).flip(0)


def _leads(runner: Runner, ids: list[int], n_new: int) -> list[float]:
    """By how much each of the last `n_new` tokens is ahead of the second most probable one."""
    if n_new == 0:
        return []
    tokens = torch.tensor([ids[:-1]], device=next(runner.model.parameters()).device)
    logits = runner.logits(tokens, torch.arange(len(ids) - 1, device=tokens.device))[0, -n_new:].float()
    best = logits.topk(2, dim=-1).values if logits.shape[-1] > 1 else logits.expand(-1, 2)
    return (best[:, 0] - best[:, 1]).tolist()


def _kept(x: Tensor) -> Tensor:
    """The one row of a batch, copied."""
    return x[0].to("cpu", torch.float32, copy=True)
