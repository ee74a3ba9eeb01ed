"""Look inside a running model from outside: by hooks, the components untouched.

The stream and who wrote it, attention, neurons, and blocks in another order; `heads` looks at single heads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.attention import Attention, attend_explicitly, causal_mask
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.quantize import Int8Weight
from decoding_llama3.norm import RMSNorm
from decoding_llama3.rope import apply_rope, rope_frequencies, scale_frequencies
from decoding_llama3.transformer import Transformer


@dataclass(frozen=True)
class Record:
    """What went into and came out of named modules during one forward pass."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@contextmanager
def recording(model: nn.Module, names: Iterable[str]) -> Iterator[Record]:
    """Record the first input and the output of the modules called `names`, as in `model.named_modules()`.

    A name that the model does not have raises ValueError.
    """
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


def dequantized_weight(layer: nn.Module) -> Float[Tensor, "rows columns"]:
    """The weights of a linear layer or an embedding in float32 on the CPU, widened where they are int8."""
    if isinstance(layer, Int8Weight):
        return layer.weight.cpu() * layer.scale.cpu()[:, None]
    assert isinstance(layer, (nn.Linear, nn.Embedding))
    return layer.weight.detach().cpu().float()


def names_of(model: Transformer, part: str) -> list[str]:
    """The name of one part, such as "attention.wo", in every block."""
    return [f"layers.{i}.{part}" for i in range(len(model.layers))]


@contextmanager
def intercepted(model: nn.Module, names: Iterable[str], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While the context is open, the modules called `names` read `change(x)` in place of x."""
    handles = []
    try:
        for name in names:
            module = model.get_submodule(name)
            handles.append(module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:])))
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_index(kind: str, index: int, count: int) -> None:
    """Raise ValueError unless `index` is one of 0 to `count` - 1; nothing counts from the end."""
    if not 0 <= index < count:
        raise ValueError(f"there is no {kind} {index}: choose one of 0 to {count - 1}")


@torch.no_grad()
def writes(model: Transformer, tokens: Int[Tensor, "batch seq"]) -> dict[str, Float[Tensor, "batch seq dim"]]:
    """What the embedding and each part of each block add to the residual stream; keys as in `residual_stream`."""
    parts = [f"layers.{i}.{part}" for i in range(len(model.layers)) for part in ("attention", "feed_forward")]
    with recording(model, ["tok_embeddings", *parts]) as record:
        model.hidden(tokens)
    added = {part.removeprefix("layers."): record.outputs[part] for part in parts}
    return {"embedding": record.outputs["tok_embeddings"]} | added


@torch.no_grad()
def residual_stream(
    model: Transformer, tokens: Int[Tensor, "batch seq"]
) -> dict[str, Float[Tensor, "batch seq dim"]]:
    """The residual stream after the embedding and after each write, in order.

    Keys: "embedding", then "0.attention", "0.feed_forward", "1.attention", ...
    """
    added = writes(model, tokens)
    return dict(zip(added, accumulate(added.values()), strict=True))


@torch.no_grad()
def queries_and_keys(
    model: Transformer, tokens: Int[Tensor, "batch seq"], rotated: bool = True
) -> list[tuple[Float[Tensor, "batch heads seq head_dim"], Float[Tensor, "batch kv_heads seq head_dim"]]]:
    """Queries and keys of each layer, after RoPE, or before it where `rotated` is False."""
    names = [f"layers.{i}.attention.{w}" for i in range(len(model.layers)) for w in ("wq", "wk")]
    with recording(model, names) as record:
        model.hidden(tokens)
    rotation = model.rotation_at(torch.arange(tokens.shape[1], device=tokens.device))
    pairs = []
    for i, layer in enumerate(model.layers):
        attention = layer.get_submodule("attention")
        assert isinstance(attention, Attention)
        q, k = (attention.split_heads(record.outputs[f"layers.{i}.attention.{w}"]) for w in ("wq", "wk"))
        pairs.append((apply_rope(q, rotation), apply_rope(k, rotation)) if rotated else (q, k))
    return pairs


def pair_frequencies(model: Transformer) -> Float[Tensor, " pairs"]:
    """Radians per position of each pair, as the model turns them: scaled where its configuration says so."""
    frequencies = rope_frequencies(model.config.head_dim, model.config.rope_theta)
    scaling = model.config.rope_scaling
    return frequencies if scaling is None else scale_frequencies(frequencies, scaling)


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


@torch.no_grad()
def logit_attribution(
    model: Transformer, tokens: Int[Tensor, "batch seq"], position: int, token: int
) -> dict[str, Float[Tensor, " batch"]]:
    """What each write adds to the logit of `token` at `position`, counted from the mean over the vocabulary.

    Keys as in `residual_stream`. With the last norm's scale held fixed nothing is left over: the sum is the
    model's logit minus the mean of its logits, to rounding. What a part tells later parts is counted as theirs.
    """
    check_index("position", position, tokens.shape[1])
    added = {name: write[:, position] for name, write in writes(model, tokens).items()}
    parts = torch.stack(list(added.values()))
    shares = share_of_logit(model, parts, parts.sum(dim=0), token)
    return dict(zip(added, shares, strict=True))


@torch.no_grad()
def share_of_logit(
    model: Transformer, added: Float[Tensor, "parts batch dim"], final: Float[Tensor, "batch dim"], token: int
) -> Float[Tensor, "parts batch"]:
    """What each of the vectors `added`, parts of the stream `final`, adds to a logit; see `logit_attribution`."""
    check_index("token", token, model.config.vocab_size)
    scale = torch.rsqrt(final.float().square().mean(dim=-1, keepdim=True) + model.norm.eps).type_as(final)
    logits = model.output(added * scale * model.norm.weight).float()
    return logits[..., token] - logits.mean(dim=-1)


@torch.no_grad()
def neuron_activations(
    model: Transformer, tokens: Int[Tensor, "batch seq"], layer: int
) -> Float[Tensor, "batch seq hidden_dim"]:
    """silu(gate) * up of every neuron in one block's feed-forward: what w_down reads."""
    check_index("layer", layer, len(model.layers))
    name = f"layers.{layer}.feed_forward.w_down"
    with recording(model, [name]) as record:
        model.hidden(tokens)
    return record.inputs[name]


def neuron_triggers(
    model: Transformer, tokens: Int[Tensor, "batch seq"], layer: int, neuron: int, k: int
) -> list[tuple[int, int, float]]:
    """The `k` tokens that move one neuron most: (row, position, activation), the strongest first.

    Strongest by absolute value, with the sign kept: a negative activation writes as much, the other way.
    Raises ValueError for a layer, neuron or `k` that there is not.
    """
    check_index("neuron", neuron, model.config.hidden_dim)
    if not 0 < k <= tokens.numel():
        raise ValueError(f"k is {k}, but there are {tokens.numel()} tokens: ask for 1 to {tokens.numel()}")
    values = neuron_activations(model, tokens, layer)[..., neuron].flatten()
    strongest = values.abs().topk(k).indices.tolist()
    places = [divmod(int(i), tokens.shape[1]) for i in strongest]
    return [(row, at, float(values[i])) for (row, at), i in zip(places, strongest, strict=True)]


def next_token_losses(
    logits: Float[Tensor, "batch seq vocab"], tokens: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq-1"]:
    """Loss in nats of each token but the first, given those before it."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


@torch.no_grad()
def loss_of(model: Transformer, tokens: Int[Tensor, "batch seq"]) -> float:
    """Mean loss in nats of every token but the first of each row, a row at a time: logits are large."""
    return torch.stack([next_token_losses(model(row[None]), row[None]) for row in tokens]).mean().item()


@contextmanager
def configured(model: Transformer, **changes) -> Iterator[None]:
    """The same weights under another configuration, while the context is open.

    For what stands in no matrix: `rope_theta`, `rope_scaling`, `norm_eps`, and `n_heads` with `n_kv_heads`.
    Another change raises ValueError.
    """
    allowed = {"rope_theta", "rope_scaling", "norm_eps", "n_heads", "n_kv_heads"}
    if changes.keys() - allowed:
        raise ValueError(f"{', '.join(changes.keys() - allowed)} shapes the weights: change {', '.join(allowed)}")
    before = model.config
    head_dim = before.n_heads * before.head_dim // changes.get("n_heads", before.n_heads)
    config = replace(before, head_dim=head_dim, **changes)
    if config.n_kv_heads * config.head_dim != before.n_kv_heads * before.head_dim:
        raise ValueError(f"{changes} gives wk another shape: keep n_kv_heads / n_heads as it is")
    try:
        _configure(model, config)
        yield
    finally:
        _configure(model, before)


def _configure(model: Transformer, config: LlamaConfig) -> None:
    model.config = config
    for part in model.modules():
        if isinstance(part, RMSNorm):
            part.eps = config.norm_eps
        elif isinstance(part, Attention):
            part.head_dim = config.head_dim


@torch.no_grad()
def run_layers(
    model: Transformer, tokens: Int[Tensor, "batch seq"], order: Iterable[int]
) -> Float[Tensor, "batch seq vocab"]:
    """Logits with the blocks applied in `order`, which may leave out, swap or repeat some."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    rotation = model.rotation_at(positions)
    x = model.tok_embeddings(tokens)
    for i in order:
        check_index("layer", i, len(model.layers))
        x = model.layers[i](x, positions, rotation)
    return model.output(model.norm(x)).float()


def layer_deletion(model: Transformer, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, " layers"]:
    """Rise of the mean loss, in nats per token, when each block alone is left out."""
    layers = range(len(model.layers))
    losses = [_loss_of(model, tokens, [i for i in layers if i != left_out]) for left_out in layers]
    return torch.stack(losses) - _loss_of(model, tokens, layers)


def layer_swap(
    model: Transformer, tokens: Int[Tensor, "batch seq"], layers: Sequence[int] | None = None
) -> Float[Tensor, "layers layers"]:
    """Rise of the mean loss, in nats per token, when two of `layers` (by default all) change places.

    0 on the diagonal. There are n (n - 1) / 2 pairs, and each is a forward pass.
    """
    layers = range(len(model.layers)) if layers is None else layers
    straight = _loss_of(model, tokens, range(len(model.layers)))
    rise = straight.new_zeros(len(layers), len(layers))
    for a, b in combinations(range(len(layers)), 2):
        order = list(range(len(model.layers)))
        order[layers[a]], order[layers[b]] = layers[b], layers[a]
        rise[a, b] = rise[b, a] = _loss_of(model, tokens, order) - straight
    return rise


def _loss_of(model: Transformer, tokens: Int[Tensor, "batch seq"], order: Iterable[int]) -> Float[Tensor, ""]:
    return next_token_losses(run_layers(model, tokens, order), tokens).mean()
