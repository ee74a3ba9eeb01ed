"""The bug museum: broken blocks that run without an error. The symptom comes first; the reader names the cause.

Each exhibit breaks a copy of a working model in one line. What it prints is measured on the spot.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from IPython.display import Markdown, display
from torch import Tensor, nn

from decoding_llama3 import attention, transformer
from decoding_llama3.config import LlamaConfig, RopeScaling
from decoding_llama3.inspect.probe import next_token_losses
from decoding_llama3.lessons.show import OPENING, TALE
from decoding_llama3.norm import RMSNorm
from decoding_llama3.rope import apply_rope, rope_frequencies, rope_rotation
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

Symptom = Callable[[Transformer, Tokenizer], Iterator[str]]


@dataclass(frozen=True)
class Exhibit:
    """`symptom` runs the broken code and tells what is seen; `causes` are a, b, c; `fault` is the broken line."""

    stem: str
    symptom: Symptom
    causes: tuple[str, str, str]
    right: str
    told: str
    fault: Callable


@torch.no_grad()
def visit(name: str, model: Transformer, tokenizer: Tokenizer, diagnosis: str | None = None) -> None:
    """Show an exhibit's symptom and its three possible causes, and judge `diagnosis` ("a", "b", "c" or None)."""
    exhibit = EXHIBITS[name]
    if diagnosis not in ("a", "b", "c", None):
        raise ValueError(f"a diagnosis is 'a', 'b', 'c' or None, found {diagnosis!r}")
    print(*exhibit.symptom(model, tokenizer), sep="\n")
    print(*(f"{letter}) {cause}" for letter, cause in zip("abc", exhibit.causes, strict=True)), sep="\n")
    if diagnosis is None:
        print("your diagnosis: open")
    else:
        print(f"your diagnosis: {diagnosis}, " + ("right" if diagnosis == exhibit.right else "no, look again"))
    code = inspect.getsource(exhibit.fault).rstrip()
    answer = f"**{exhibit.right}.** {exhibit.told}\n\n```python\n{code}\n```"
    display(Markdown(f"<details><summary>The cause, and the broken code</summary>\n\n{answer}\n\n</details>"))


def _tale(tokenizer: Tokenizer, times: int = 1) -> Tensor:
    return torch.tensor([tokenizer.encode(" ".join([TALE] * times), bos=True)])


def _opening(tokenizer: Tokenizer) -> Tensor:
    return torch.tensor([tokenizer.encode(OPENING, bos=True)])


def _loss(model: Transformer, tokens: Tensor) -> float:
    return next_token_losses(model(tokens).float(), tokens).mean().item()


class NormInItsOwnPrecision(RMSNorm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight


class NormOverTokens(RMSNorm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(dim=(-2, -1), keepdim=True) + self.eps) * self.weight


class NormWithoutWeight(RMSNorm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)


def _with_norms(model: Transformer, kind: type[RMSNorm]) -> Transformer:
    broken = copy.deepcopy(model)
    for name, norm in list(broken.named_modules()):
        if isinstance(norm, RMSNorm):
            swapped = kind(len(norm.weight), norm.eps).to(norm.weight)
            swapped.weight = norm.weight
            broken.set_submodule(name, swapped)
    return broken


def _norm_in_half(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    x = 30 * torch.randn(1, 3, 4096, generator=torch.Generator().manual_seed(0))
    norm = NormInItsOwnPrecision(4096, 1e-5)
    for size in (1, 3, 10, 30):
        rms = norm.half()((size * x).half()).float().square().mean().sqrt()
        yield f"float16, numbers of about {30 * size:,}: after the norm the RMS is {rms:.1f}"


def _norm_over_tokens(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    broken, tokens = _with_norms(model, NormOverTokens), _opening(tokenizer)
    other = tokens.clone()
    other[0, -1] = tokenizer.encode(" ring")[0]
    for name, net in (("right", model), ("broken", broken)):
        moved = (net(tokens) - net(other))[0].abs().amax(dim=-1) > 1e-3
        yield f"{name}: another last word changes the logits of {int(moved.sum())} of {len(moved)} places"


def _norm_without_weight(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens = _tale(tokenizer)
    broken = _with_norms(model, NormWithoutWeight)
    yield f"every file loads, no error; loss {_loss(model, tokens):.1f} before, {_loss(broken, tokens):.1f} now"
    fresh = _with_norms(Transformer(model.config), NormWithoutWeight)
    right = Transformer(model.config)
    right.load_state_dict(fresh.state_dict())
    same = torch.allclose(fresh(tokens), right(tokens), atol=1e-4)
    yield f"on a model that was never trained, broken and right agree: {same}"


def half_split(weight: Tensor, head_dim: int) -> Tensor:
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _halves(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    broken, tokens = copy.deepcopy(model), _tale(tokenizer)
    for layer in broken.layers:
        for w in (layer.attention.wq, layer.attention.wk):
            w.weight.copy_(half_split(w.weight, model.config.head_dim))
    off = (broken(tokens) - model(tokens))[0].abs().amax(dim=-1)
    yield f"every shape fits; loss {_loss(model, tokens):.1f} before, {_loss(broken, tokens):.1f} now"
    first, others = off[0] < 1e-3, (off[1:] < 1e-3).all()
    yield f"the logits behind the first token are right: {bool(first)}; behind the others: {bool(others)}"


def _drift(right: Transformer, broken: Transformer, tokens: Tensor) -> Iterator[str]:
    theirs, ours = right(tokens)[0], broken(tokens)[0]
    off = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)
    for start, end in ((1, 8), (8, 64), (64, tokens.shape[1])):
        yield f"tokens {start:3} to {end - 1:3}: logits wrong by {off[start:end].mean():.1%}"


def without_scaling(config: LlamaConfig) -> LlamaConfig:
    return dataclasses.replace(config, rope_scaling=None)


def _scaling_forgotten(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64)
    right = Transformer(dataclasses.replace(model.config, rope_scaling=scaling)).eval()
    broken = Transformer(without_scaling(right.config)).eval()
    for net in (right, broken):
        net.load_state_dict(model.state_dict())
    yield "a model whose config.json has a rope_scaling; fine on short prompts, worse on long ones"
    yield from _drift(right, broken, _tale(tokenizer, 3)[:, :400])


def rounded_frequencies(head_dim: int, theta: float) -> Tensor:
    return rope_frequencies(head_dim, theta).bfloat16().float()


def _rounded(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    query = torch.randn(1, 128, generator=torch.Generator().manual_seed(0))
    yield "an 8B (pairs 64, theta 500,000) after model.to(torch.bfloat16); short prompts are fine"
    for position in (10, 100, 1000, 8000):
        right, ours = (
            apply_rope(query, rope_rotation(frequencies(128, 500_000.0), torch.tensor([position])))
            for frequencies in (rope_frequencies, rounded_frequencies)
        )
        cosine = torch.cosine_similarity(ours, right).item()
        yield f"a query at position {position:5,}: cosine to where it should point {cosine:.2f}"


def attend_tiled(q, k, v, mask):
    share = q.shape[1] // k.shape[1]
    return attend(q, k.repeat(1, share, 1, 1), v.repeat(1, share, 1, 1), mask)


def attend_scaled_by_head_dim(q, k, v, mask):
    return attend(q / q.shape[-1] ** 0.5, k, v, mask)


def square_mask(positions, length):
    return torch.ones(len(positions), length, dtype=torch.bool).tril()


attend = attention.attend


def _tiled(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, share = _tale(tokenizer), model.config.queries_per_kv
    with mock.patch.object(attention, "attend", attend_tiled):
        now = _loss(model, tokens)
    yield f"every shape is right; loss {_loss(model, tokens):.1f} before, {now:.1f} now"
    order = torch.arange(model.config.n_kv_heads).repeat(share).tolist()
    right = torch.arange(model.config.n_kv_heads).repeat_interleave(share).tolist()
    served = sum(a == b for a, b in zip(order, right, strict=True))
    yield f"of {len(right)} query heads in a block, {served} read the keys they were trained with"


def _saturated(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens = _tale(tokenizer)
    with mock.patch.object(attention, "attend", attend_scaled_by_head_dim):
        yield f"loss {_loss(model, tokens):.1f}, no error"
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 64, 128, generator=generator) for _ in range(2))
    for name, wrong in (("right", False), ("broken", True)):
        scores = (q / (128**0.5 if wrong else 1)) @ k.transpose(-2, -1) / 128**0.5
        keys = torch.special.entr(scores.softmax(-1)).sum(-1).mean().exp()
        yield f"{name}: a query of 128 random features spreads its weight over {keys:.0f} of 64 keys"


def _square(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, first = _opening(tokenizer), 9
    whole, caches = model(tokens), model.make_caches(batch=1, length=tokens.shape[1])
    with mock.patch.object(transformer, "causal_mask", square_mask):
        pieces = [
            model(tokens[:, start:end], torch.arange(start, end), caches)
            for start, end in ((0, first), (first, tokens.shape[1]))
        ]
    right = (torch.cat(pieces, dim=1) - whole)[0].abs().amax(dim=-1) < 1e-3
    yield f"a prompt read in two pieces of {first} and {tokens.shape[1] - first} tokens; in one piece all is right"
    yield f"right logits in the first piece: {int(right[:first].sum())}, in the second: {int(right[first:].sum())}"


def exchanged(layer: nn.Module) -> None:
    ff = layer.feed_forward
    ff.w_gate, ff.w_up = ff.w_up, ff.w_gate


def _exchanged(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    broken, tokens = copy.deepcopy(model), _tale(tokenizer)
    for layer in broken.layers:
        exchanged(layer)
    yield f"every shape fits; loss {_loss(model, tokens):.1f} before, {_loss(broken, tokens):.1f} now"
    right = (broken(tokens) - model(tokens))[0].abs().amax(dim=-1) < 1e-3
    yield f"right logits, even behind the first token: {int(right.sum())} of {len(right)}"


def hidden_dim_with_rest(hidden: int, multiple_of: int) -> int:
    return multiple_of * ((hidden + multiple_of - 1) % multiple_of)


def _too_wide(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    for hidden, multiple in ((14_198, 1024), (10_922, 256)):
        width = hidden_dim_with_rest(hidden, multiple)
        yield f"a width of {hidden:,}, in multiples of {multiple:,}, becomes {width:,}"
    parameters = 3 * 4096 * hidden_dim_with_rest(14_198, 1024)
    yield f"one feed-forward network of the 8B would have {parameters / 1e9:.0f} · 10⁹ parameters"


def _standing_still(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, first = _opening(tokenizer), 9
    whole, right = model(tokens), []
    caches = model.make_caches(batch=1, length=tokens.shape[1])
    model(tokens[:, :first], torch.arange(first), caches)
    for i in range(first, tokens.shape[1]):
        step = step_without_counting(model, tokens[:, i : i + 1], first, caches)
        right.append((step[0, 0] - whole[0, i]).abs().max() < 1e-3)
    yield f"a prompt of {first} tokens is read well, and the first new token, too"
    yield f"of the {len(right)} new tokens, right are: {int(sum(right))}"


def step_without_counting(model, token, prompt_length, caches):
    return model(token, torch.tensor([prompt_length]), caches)


def _first_loss(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tokens, blind = _tale(tokenizer), torch.tensor(float(model.config.vocab_size)).log().item()
    fresh = Transformer(model.config)
    large_weights(fresh)
    yield f"before the first step of training: loss {_loss(fresh, tokens):.0f}; knowing nothing costs {blind:.1f}"


def large_weights(model):
    generator = torch.Generator().manual_seed(0)
    model.tok_embeddings.weight.normal_(std=0.3, generator=generator)
    model.output.weight = model.tok_embeddings.weight


def load_with_assign(model, state):
    model.load_state_dict(state, assign=True)


def _untied(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    tied = Transformer(dataclasses.replace(model.config, tie_embeddings=True))
    before = sum(p.numel() for p in tied.parameters())
    state = {name: weight.clone() for name, weight in tied.state_dict().items()}
    load_with_assign(tied, state)
    after, tokens = sum(p.numel() for p in tied.parameters()), _opening(tokenizer)
    plain = Transformer(tied.config)
    plain.load_state_dict(state)
    same = torch.allclose(tied(tokens), plain(tokens), atol=1e-4)
    yield f"a model with one table for both ends: {before:,} parameters, after loading {after:,}"
    yield f"its logits are right: {same}; but it is as large as with two tables, and a training step parts them"


EXHIBITS = {
    "norm_in_half": Exhibit(
        "norm",
        _norm_in_half,
        ("eps is too large", "squares overflow in float16", "the weight is not applied"),
        "b",
        "Beyond 255 a square exceeds 65,504: the mean is infinite, and everything divided by it is 0. Square in "
        "float32.",
        NormInItsOwnPrecision,
    ),
    "norm_over_tokens": Exhibit(
        "norm",
        _norm_over_tokens,
        ("the causal mask is missing", "positions are wrong", "the mean runs over tokens as well"),
        "c",
        "One statistic for the whole text carries the future into the past. In training that looks like progress.",
        NormOverTokens,
    ),
    "norm_without_weight": Exhibit(
        "norm",
        _norm_without_weight,
        ("the norm's weight is never applied", "eps stands outside the root", "the last norm is missing"),
        "a",
        "Before training all these weights are 1: no test on a fresh model sees it. Test with random ones.",
        NormWithoutWeight,
    ),
    "halves": Exhibit(
        "rope",
        _halves,
        ("theta is wrong", "rows of wq and wk lie in the other order of pairs", "values were rotated, too"),
        "b",
        "At position 0 nothing is turned, so the first token is right. A wrong theta would leave it right, "
        "too, but near tokens would suffer less than far ones.",
        half_split,
    ),
    "scaling_forgotten": Exhibit(
        "rope",
        _scaling_forgotten,
        ("positions are not advanced", "speeds were rounded", "the scaling of slow pairs is missing"),
        "c",
        "Slow pairs turn eight times too fast. Over short distances that is hardly seen.",
        without_scaling,
    ),
    "rounded_speeds": Exhibit(
        "rope",
        _rounded,
        ("the speeds were rounded to bfloat16", "the cache is too short", "pairs lie in the other order"),
        "a",
        "An error of a speed is multiplied by the position. Compute speeds and angles in float32.",
        rounded_frequencies,
    ),
    "tiled": Exhibit(
        "attention",
        _tiled,
        ("the mask is missing", "keys are repeated as 0 1 0 1, not 0 0 1 1", "the scale is missing"),
        "b",
        "repeat_interleave, not repeat: query heads 0 to 3 share key/value head 0.",
        attend_tiled,
    ),
    "saturated": Exhibit(
        "attention",
        _saturated,
        ("the scores are divided by head_dim, not its root", "the mask looks ahead", "the values are rotated"),
        "a",
        "Divided by 128 and not by 11.3, all scores are nearly equal, and so are the weights: a query takes "
        "the mean of all values. With no scale at all it is the opposite: one key takes everything.",
        attend_scaled_by_head_dim,
    ),
    "square_mask": Exhibit(
        "attention",
        _square,
        ("the cache was not written", "keys are tiled", "the mask counts from 0 in each piece"),
        "c",
        "Query i of the second piece stands at 9 + i, but the mask lets it see keys 0 to i only. Make the mask "
        "from absolute positions.",
        square_mask,
    ),
    "exchanged": Exhibit(
        "feed_forward",
        _exchanged,
        ("w_up and w_down are exchanged", "w_gate and w_up are exchanged", "SiLU is missing"),
        "b",
        "Both have one shape. w_down has another, so exchanging that one would not load. Names like w1 and w3 "
        "breed this fault.",
        exchanged,
    ),
    "too_wide": Exhibit(
        "feed_forward",
        _too_wide,
        ("it rounds down", "the multiplier is applied twice", "% stands where // belongs"),
        "c",
        "The rest of a division, times the multiple, is any number at all.",
        hidden_dim_with_rest,
    ),
    "standing_still": Exhibit(
        "transformer",
        _standing_still,
        ("the position is not counted up with the cache", "the cache is too short", "the last norm is missing"),
        "a",
        "Every new token is turned as if it were the first one, and overwrites its slot.",
        step_without_counting,
    ),
    "first_loss": Exhibit(
        "transformer",
        _first_loss,
        ("the learning rate is too high", "the first weights are too large", "the labels are shifted by two"),
        "b",
        "A fresh model should be unsure: its loss is about ln of the vocabulary. Large weights make it sure of "
        "nonsense. No step has been taken, so no learning rate can be at fault.",
        large_weights,
    ),
    "untied": Exhibit(
        "transformer",
        _untied,
        ("the file holds the table twice", "the output has a bias", "assign=True made two parameters of one"),
        "c",
        "load_state_dict(assign=True) gives each name a tensor of its own. Tie them again afterwards.",
        load_with_assign,
    ),
}
