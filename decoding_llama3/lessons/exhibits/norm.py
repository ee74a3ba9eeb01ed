"""Part 3 - exhibits of the bug museum on normalisation."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from decoding_llama3.inference.own_parts import with_own_parts
from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, Seen, as_built, checked, opening, right_after, tale, yes
from decoding_llama3.lessons.parting import OURS
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

HEALTHY = OURS["my_rms_norm"][0]
TASK = (
    "`x` is (batch, seq, dim) in any dtype and `weight` is (dim,). Return the normalised `x`, in its shape "
    "and dtype."
)


def norm_in_its_own_precision(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight


def norm_over_tokens(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(dim=(-2, -1), keepdim=True) + eps) * weight


def norm_without_weight(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


def _like_x(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x


def _with(model: Transformer, norm: Callable[..., Tensor]) -> Transformer:
    return with_own_parts(copy.deepcopy(model), {"my_rms_norm": checked(norm, _like_x)})


def _in_half(model: Transformer, tokenizer: Tokenizer, norm: Callable[..., Tensor]) -> Seen:
    generator = torch.Generator().manual_seed(0)
    x, rows, results = 30 * torch.randn(1, 3, 4096, generator=generator), {}, []
    weight = (1 + 0.1 * torch.randn(4096, generator=generator)).half()
    for size in (1, 3, 10, 30):
        results.append(checked(norm, _like_x)((size * x).half(), weight.clone(), 1e-5).float())
        rows[f"RMS of the result, of numbers of about {30 * size:,}"] = f"{results[-1].square().mean().sqrt():.1f}"
    return Seen(rows, results)


def _last_word(model: Transformer, tokenizer: Tokenizer, norm: Callable[..., Tensor]) -> Seen:
    net, tokens, rows = _with(model, norm), opening(tokenizer), {}
    alone = with_parts(net, attend=lambda q, k, v, mask: torch.zeros_like(q))
    another = tokens.clone()
    another[0, -1] = tokenizer.encode(" ring")[0]
    places = f"places of {tokens.shape[1]} whose logits change"
    for how, each in ((places, net), (f"{places}, with attention switched off", alone)):
        rows[how] = str(right_after(each(tokens), each(another)).count(False))
    return Seen(rows, net(tokens))


def _loss(model: Transformer, tokenizer: Tokenizer, norm: Callable[..., Tensor]) -> Seen:
    net, tokens, fresh = _with(model, norm), tale(tokenizer), as_built(model.config)
    same = all(right_after(_with(fresh, norm)(tokens), fresh(tokens)))
    rows = {
        "loss on a tale, in nats per token": f"{loss_of(net, tokens):.1f}",
        "a model as it is built, before training, gives the right logits": yes(same),
    }
    return Seen(rows, net(tokens))


EXHIBITS = {
    "3.1": Exhibit(
        "A norm works in half precision, on numbers of four sizes.",
        _in_half,
        {
            "eps is far too large": (
                "A large eps counts most where the numbers are small. Here the small numbers come out right, and "
                "the large ones do not."
            ),
            "squares exceed the largest float16": (
                "Beyond 255 a square exceeds 65,504, so the mean is infinite, and everything that is divided by "
                "it becomes 0. Take the squares in float32."
            ),
            "the weight is not applied": (
                "Without its weight a norm still divides by the root mean square, so the RMS would be 1.0 at "
                "every size."
            ),
            "it divides by the mean square, not by its root": (
                "Numbers of about 30 would then come out with an RMS of about 1/30, which is printed as 0.0. It "
                "is 1.0."
            ),
        },
        "b",
        norm_in_its_own_precision,
        HEALTHY,
        TASK,
        result="the normalised vectors",
        tolerance=4e-3,
    ),
    "3.2": Exhibit(
        "The same sentence is read twice, the second time with another last word.",
        _last_word,
        {
            "the causal mask is missing": (
                "The mask acts in attention alone. With attention switched off, a missing mask could change "
                "nothing, but all places still change."
            ),
            "positions are wrong": (
                "Both sentences would have the same wrong positions, so the places before the last word would "
                "still agree."
            ),
            "the mean runs over tokens as well": (
                "One statistic for the whole text carries the future into the past. In training that looks like "
                "progress."
            ),
            "the weight of the norm is left out": (
                "Each token would still be divided by a number of its own, so only the last place would change."
            ),
        },
        "c",
        norm_over_tokens,
        HEALTHY,
        TASK,
    ),
    "3.3": Exhibit(
        "Every file loads, and nothing raises an error.",
        _loss,
        {
            "the weight of the norm is left out": (
                "Before training all these weights are 1, so no test on a model as it is built sees the fault. "
                "Test with random weights."
            ),
            "eps stands outside the root": (
                "That moves the divisor by at most 0.003, the root of eps. The loss would rise by less than a "
                "tenth of a nat."
            ),
            "the last norm is missing": (
                "A model before training has this norm as well and needs it: its logits would be wrong, but they "
                "are right."
            ),
            "the mean is subtracted first, as in LayerNorm": (
                "A model before training has means other than zero as well: its logits would be wrong, but they "
                "are right."
            ),
        },
        "a",
        norm_without_weight,
        HEALTHY,
        TASK,
    ),
}
