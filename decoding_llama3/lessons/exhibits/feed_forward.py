"""Part 6 - exhibits of the bug museum on the feed-forward network."""

import copy
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from decoding_llama3.inference.own_parts import with_own_parts
from decoding_llama3.inspect.probe import loss_of, recording
from decoding_llama3.lessons.exhibit import Exhibit, Seen, checked, right_after, tale, yes
from decoding_llama3.lessons.parting import OURS
from decoding_llama3.lessons.practice.compare import difference
from decoding_llama3.lessons.practice.mistake import Mistake
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

HEALTHY = OURS["my_swiglu"][0]
WIDTHS = ((14_198, 1024), (10_922, 256), (4096, 256))


def swiglu_exchanged(x, w_gate, w_up, w_down):
    return w_down(F.silu(w_up(x)) * w_gate(x))


def hidden_dim_with_rest(hidden, multiple_of):
    return multiple_of * ((hidden + multiple_of - 1) % multiple_of)


def _rounded_up(hidden: int, multiple_of: int) -> int:
    return multiple_of * -(-hidden // multiple_of)


def _network(model: Transformer, tokenizer: Tokenizer, network: Callable[..., Tensor]) -> Seen:
    network, tokens = checked(network, lambda x, *_: x), tale(tokenizer)
    net, name = with_own_parts(copy.deepcopy(model), {"my_swiglu": network}), "layers.0.feed_forward"
    right = model(tokens)
    with recording(model, [name]) as record:
        model(tokens)
    x, alone, wanted = record.inputs[name], net.get_submodule(name), record.outputs[name]
    once, twice = alone(x), alone(2 * x)
    rows = {
        "loss on a tale, in nats per token": f"{loss_of(net, tokens):.1f}",
        f"right logits, of {tokens.shape[1]}": str(sum(right_after(net(tokens), right))),
        "the first network, on its own, gives the right result": yes(all(right_after(once, wanted))),
        "twice its input makes its result larger by the factor": f"{twice.norm() / once.norm():.2f}",
    }
    return Seen(rows, net(tokens))


def _widths(model: Transformer, tokenizer: Tokenizer, rounded: Callable[[int, int], int]) -> Seen:
    found = [rounded(*each) for each in WIDTHS]
    for each in found:
        if isinstance(each, bool) or not isinstance(each, int):
            raise Mistake(difference(each, 0))
    rows = {
        f"a width of {hidden:,}, in multiples of {multiple:,}": f"{width:,}"
        for (hidden, multiple), width in zip(WIDTHS, found, strict=True)
    }
    rows["parameters of such a network in an 8B, in millions"] = f"{3 * 4096 * found[0] / 1e6:,.0f}"
    return Seen(rows, found)


EXHIBITS = {
    "6.1": Exhibit(
        "A model is loaded from a file. Every shape fits.",
        _network,
        {
            "w_up and w_down are exchanged": (
                "One is (hidden, dim), the other (dim, hidden). Exchanged, they would not fit, and nothing could "
                "run."
            ),
            "w_gate and w_up are exchanged": (
                "Both have one shape, so nothing stops it. Names like w1 and w3 invite this fault."
            ),
            "SiLU is missing": (
                "Then the network would be a product of two linear maps: twice the input would give exactly 4 "
                "times the result."
            ),
            "its result is not added to the residual stream": (
                "Then the network on its own would give the right result. It does not."
            ),
        },
        "b",
        swiglu_exchanged,
        HEALTHY,
        "`w_gate`, `w_up` and `w_down` are layers to call, as in `w_up(x)`. Return (batch, seq, dim), like `x`.",
    ),
    "6.2": Exhibit(
        "The width of the hidden layer is rounded.",
        _widths,
        {
            "it rounds down": (
                "Rounded down, a width becomes smaller by less than one multiple. These become many times larger."
            ),
            "one multiple too many is added": (
                "A width would be too large by one multiple: 15,360 where 14,336 is right. This one is 63 times "
                "too large."
            ),
            "% stands where // belongs": "The rest of a division, times the multiple, is any number at all.",
            "the number of multiples is returned, not their product": (
                "Then 14,198 in multiples of 1,024 would become 14, a smaller number. It becomes a larger one."
            ),
        },
        "c",
        hidden_dim_with_rest,
        _rounded_up,
        "Return the smallest multiple of `multiple_of` that is at least `hidden`, a whole number.",
        result="the widths",
        tolerance=0.0,
    ),
}
