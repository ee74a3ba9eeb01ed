"""A model with parts exchanged: another norm, another way to attend, a learner's own block."""

import copy
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.norm import RMSNorm
from decoding_llama3.transformer import Transformer

Build = Callable[[LlamaConfig], nn.Module]


def with_parts(
    model: Transformer,
    *,
    attend: Callable[..., Tensor] | None = None,
    rotate: Callable[..., Tensor] | None = None,
    norm: Callable[[int, float], nn.Module] | None = None,
    last_norm: Callable[[int, float], nn.Module] | None = None,
    attention: Build | None = None,
    feed_forward: Build | None = None,
    block: Build | None = None,
    embedding: Callable[[int, int], nn.Module] | None = None,
    new_weights: bool = False,
) -> Transformer:
    """`model` with parts exchanged in every block; `model` itself stays as it is, and both share their weights.

    `attend(q, k, v, mask)` and `rotate(x, rotation)` stand for the functions that Attention calls. The others are
    classes, or functions that build a module: `norm(dim, eps)` for all norms, `last_norm(dim, eps)` for the one
    before the output, `embedding(vocab_size, dim)`, and `attention`, `feed_forward` and `block` from the
    configuration. Each new module takes the weights of the one that it replaces, by name.

    Raises ValueError where names or shapes of weights differ, unless `new_weights` allows it: then what differs
    keeps the weights that it was built with, on the model's device and in its dtype.
    """
    new = copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
    config, blocks = model.config, [f"layers.{i}" for i in range(len(new.layers))]
    sized = (config.dim, config.norm_eps)
    _exchange(new, blocks, block, (config,), new_weights)
    _exchange(new, [f"{name}.attention" for name in blocks], attention, (config,), new_weights)
    _exchange(new, [f"{name}.feed_forward" for name in blocks], feed_forward, (config,), new_weights)
    norms = [name for name, part in new.named_modules() if isinstance(part, RMSNorm)]
    _exchange(new, norms, norm, sized, new_weights)
    _exchange(new, ["norm"], last_norm, sized, new_weights)
    _exchange(new, ["tok_embeddings"], embedding, (config.vocab_size, config.dim), new_weights)
    for name, function in (("attend", attend), ("rotate", rotate)):
        for layer in new.layers if function is not None else ():
            setattr(layer.attention, name, function)
    return new


def _exchange(
    model: Transformer,
    names: list[str],
    build: Callable[..., nn.Module] | None,
    arguments: tuple,
    new_weights: bool,
) -> None:
    """Put what `build(*arguments)` makes in the place of each of the modules `names`."""
    if build is None:
        return
    for name in names:
        made = _take_weights(build(*arguments), model.get_submodule(name), name, new_weights)
        model.set_submodule(name, made.train(model.training))


def _take_weights(made: nn.Module, old: nn.Module, name: str, new_weights: bool) -> nn.Module:
    """Give `made` the very parameters and buffers of `old` that have its names and shapes."""
    wanted, there = (dict(chain(m.named_parameters(), m.named_buffers())) for m in (made, old))
    alike = {key for key in wanted.keys() & there.keys() if wanted[key].shape == there[key].shape}
    differing = sorted((wanted.keys() | there.keys()) - alike)
    if differing and not new_weights:
        key = differing[0]
        ours, theirs = (f"{tuple(d[key].shape)}" if key in d else "none" for d in (wanted, there))
        raise ValueError(
            f"the new {name} has for the weight {key!r} the shape {ours}, the model has {theirs}: give the part "
            "the names and shapes of the model's weights, or pass new_weights=True to train it anew"
        )
    if there:
        like = next(iter(there.values()))
        made.to(like.device, like.dtype if like.is_floating_point() else torch.get_default_dtype())
    for key in alike:
        owner, _, leaf = key.rpartition(".")
        setattr(made.get_submodule(owner), leaf, there[key])
    return made
