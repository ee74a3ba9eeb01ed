"""Look inside a running model from outside: by hooks, the components untouched."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.attention import attend_explicitly, causal_mask
from decoding_llama3.rope import apply_rope
from decoding_llama3.transformer import Transformer


@dataclass(frozen=True)
class Record:
    """What went into and came out of named modules during one forward pass."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@contextmanager
def recording(model: nn.Module, names: Iterable[str]) -> Iterator[Record]:
    """Record the first input and the output of the modules called `names`, as in `model.named_modules()`."""
    modules, record, handles, names = dict(model.named_modules()), Record({}, {}), [], list(names)
    for name in names:
        if name not in modules:
            raise ValueError(f"the model has no module {name!r}; 'layers.0.attention' is one it may have")
    for name in names:

        def keep(module, args, output, name=name):
            record.inputs[name], record.outputs[name] = args[0].detach(), output.detach()

        handles.append(modules[name].register_forward_hook(keep))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def residual_stream(
    model: Transformer, tokens: Int[Tensor, "batch seq"]
) -> dict[str, Float[Tensor, "batch seq dim"]]:
    """The residual stream after the embedding and after each write, in order.

    Keys: "embedding", then "0.attention", "0.feed_forward", "1.attention", ...
    """
    parts = [f"layers.{i}.{part}" for i in range(len(model.layers)) for part in ("attention", "feed_forward")]
    with recording(model, ["tok_embeddings", *parts]) as record:
        model.hidden(tokens)
    stream = {"embedding": record.outputs["tok_embeddings"]}
    for part in parts:
        stream[part.removeprefix("layers.")] = list(stream.values())[-1] + record.outputs[part]
    return stream


@torch.no_grad()
def queries_and_keys(
    model: Transformer, tokens: Int[Tensor, "batch seq"], rotated: bool = True
) -> list[tuple[Float[Tensor, "batch heads seq head_dim"], Float[Tensor, "batch kv_heads seq head_dim"]]]:
    """Queries and keys of each layer, after RoPE, or before it where `rotated` is False."""
    names = [f"layers.{i}.attention.{w}" for i in range(len(model.layers)) for w in ("wq", "wk")]
    with recording(model, names) as record:
        model.hidden(tokens)
    rotation = model._rotation(torch.arange(tokens.shape[1], device=tokens.device))
    pairs = []
    for i, layer in enumerate(model.layers):
        q, k = (layer.attention._split_heads(record.outputs[f"layers.{i}.attention.{w}"]) for w in ("wq", "wk"))
        pairs.append((apply_rope(q, rotation), apply_rope(k, rotation)) if rotated else (q, k))
    return pairs


@torch.no_grad()
def attention_weights(
    model: Transformer, tokens: Int[Tensor, "batch seq"]
) -> list[Float[Tensor, "batch heads seq seq"]]:
    """Who looks at whom in each layer: row = the token that looks, column = the token looked at."""
    mask = causal_mask(torch.arange(tokens.shape[1], device=tokens.device), tokens.shape[1])
    return [attend_explicitly(q, k, k, mask)[1] for q, k in queries_and_keys(model, tokens)]


@torch.no_grad()
def logit_lens(model: Transformer, tokens: Int[Tensor, "batch seq"]) -> list[Float[Tensor, "batch seq vocab"]]:
    """Logits read off the residual stream after 0, 1, ... all layers, through the last norm and the output."""
    stream = residual_stream(model, tokens)
    depths = ["embedding", *(f"{i}.feed_forward" for i in range(len(model.layers)))]
    return [model.output(model.norm(stream[depth])).float() for depth in depths]
