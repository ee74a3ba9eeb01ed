"""Part 3 - exhibits of the bug museum on normalisation."""

from collections.abc import Iterator

import torch

from decoding_llama3.inference.parts import with_parts
from decoding_llama3.inspect.probe import loss_of
from decoding_llama3.lessons.exhibit import Exhibit, opening, tale
from decoding_llama3.norm import RMSNorm
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


class NormInItsOwnPrecision(RMSNorm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight


class NormOverTokens(RMSNorm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(dim=(-2, -1), keepdim=True) + self.eps) * self.weight


class NormWithoutWeight(RMSNorm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)


def _norm_in_half(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    x = 30 * torch.randn(1, 3, 4096, generator=torch.Generator().manual_seed(0))
    norm = NormInItsOwnPrecision(4096, 1e-5)
    for size in (1, 3, 10, 30):
        rms = norm.half()((size * x).half()).float().square().mean().sqrt()
        yield f"float16, numbers of about {30 * size:,}: after the norm the RMS is {rms:.1f}"


def _norm_over_tokens(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    broken, tokens = with_parts(model, norm=NormOverTokens), opening(tokenizer)
    other = tokens.clone()
    other[0, -1] = tokenizer.encode(" ring")[0]
    for name, net in (("right", model), ("broken", broken)):
        moved = (net(tokens) - net(other))[0].abs().amax(dim=-1) > 1e-3
        yield f"{name}: another last word changes the logits of {int(moved.sum())} of {len(moved)} places"


def _norm_without_weight(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens = tale(tokenizer)
    broken = with_parts(model, norm=NormWithoutWeight)
    before, now = loss_of(model, tokens), loss_of(broken, tokens)
    yield f"every file loads, no error; loss {before:.1f} before, {now:.1f} now"
    fresh = with_parts(Transformer(model.config), norm=NormWithoutWeight)
    right = Transformer(model.config)
    right.load_state_dict(fresh.state_dict())
    same = torch.allclose(fresh(tokens), right(tokens), atol=1e-4)
    yield f"on a model that was never trained, broken and right agree: {same}"


EXHIBITS = {
    "norm_in_half": Exhibit(
        _norm_in_half,
        ("eps is too large", "squares overflow in float16", "the weight is not applied"),
        "b",
        "Beyond 255 a square exceeds 65,504: the mean is infinite, and everything divided by it is 0. Square in "
        "float32.",
        NormInItsOwnPrecision,
    ),
    "norm_over_tokens": Exhibit(
        _norm_over_tokens,
        ("the causal mask is missing", "positions are wrong", "the mean runs over tokens as well"),
        "c",
        "One statistic for the whole text carries the future into the past. In training that looks like progress.",
        NormOverTokens,
    ),
    "norm_without_weight": Exhibit(
        _norm_without_weight,
        ("the norm's weight is never applied", "eps stands outside the root", "the last norm is missing"),
        "a",
        "Before training all these weights are 1: no test on a fresh model sees it. Test with random ones.",
        NormWithoutWeight,
    ),
}
