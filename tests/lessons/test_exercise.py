"""Every check is proven: its solution passes, the stub is open, answers that learners give get feedback."""

import importlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import decoding_llama3 as dl
from decoding_llama3.lessons import checks
from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_close, expect_like, expect_number

STEMS = ("tokenizer", "config", "norm", "rope", "attention", "feed_forward", "transformer")


def exercises(stem: str) -> dict[str, Exercise]:
    module = importlib.import_module(f"{checks.__name__}.{stem}")
    return {name: value for name, value in vars(module).items() if isinstance(value, Exercise)}


ALL = {f"{stem}.{name}": exercise for stem in STEMS for name, exercise in exercises(stem).items()}


def decode_each(pieces):
    return [piece.decode(errors="replace") for piece in pieces]


def ignore_halves(pieces):
    return [piece.decode(errors="ignore") for piece in pieces]


def wait_for_the_end(pieces):
    return [""] * (len(pieces) - 1) + [b"".join(pieces).decode()]


def all_or_nothing(pieces):
    shown, kept = [], b""
    for piece in pieces:
        kept += piece
        try:
            shown.append(kept.decode())
            kept = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown


def count_with(embedding=2, norms=2, last=1, matrices=3, kv=None):
    def count(c):
        heads = c.n_kv_heads if kv is None else c.n_heads
        tables = embedding if embedding != "tied" else (1 if c.tie_embeddings else 2)
        layer = 2 * c.dim**2 + 2 * c.dim * heads * c.head_dim + matrices * c.dim * c.hidden_dim + norms * c.dim
        return tables * c.vocab_size * c.dim + c.n_layers * layer + last * c.dim

    return count


def hidden_with(rounding, cut=int):
    return lambda dim, multiplier, multiple: rounding(cut(multiplier * (8 * dim // 3)), multiple)


def rms(x, weight, eps, axis=-1):
    return x / (x.square().mean(dim=axis, keepdim=True) + eps).sqrt() * weight


def in_place(matrix, weight):
    matrix *= weight
    return matrix


def turn(x, positions, theta, sign=1, exponent=2):
    pairs = torch.arange(0, x.shape[-1] // 2) * exponent / x.shape[-1]
    angles = sign * positions[:, None] / theta**pairs
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos()
    return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)


def turn_halves(x, positions, theta):
    angles = positions[:, None] / theta ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


def attend_with(repeat=None, scale=None, mask=True, late=False):
    def attend(q, k, v, m):
        n = q.shape[1] // k.shape[1]
        k, v = ((repeat or torch.Tensor.repeat_interleave)(x, n, 1) for x in (k, v))
        scores = q @ k.transpose(-2, -1) / (q.shape[-1] ** 0.5 if scale is None else scale(q))
        if mask and not late:
            scores = scores.masked_fill(~m, float("-inf"))
        weights = scores.softmax(dim=-1)
        return (weights.masked_fill(~m, 0) if late else weights) @ v

    return attend


def own_mask(q, k, v, mask):
    n, length = q.shape[2], k.shape[2]
    return attend_with()(q, k, v, torch.ones(n, length, dtype=torch.bool).tril(length - n))


def tile(x, n, _):
    return x.repeat(1, n, 1, 1)


def pool_far_apart(weight, n_heads, n_pooled):
    heads = weight.view(n_heads // n_pooled, n_pooled, -1, weight.shape[1])
    return heads.mean(dim=0).flatten(0, 1)


def pool_with(pick):
    def pool(weight, n_heads, n_pooled):
        return pick(weight.view(n_pooled, n_heads // n_pooled, -1, weight.shape[1])).flatten(0, 1)

    return pool


def gated(activation, joined=torch.mul):
    return lambda x, gate, up, down: joined(activation(x @ gate.T), x @ up.T) @ down.T


def only_shuffles(function):
    x, order = torch.randn(1, 6, 8), torch.tensor([3, 1, 0, 5, 4, 2])
    return torch.allclose(function(x[:, order]), function(x)[:, order], atol=1e-5)


def only_the_last(function):
    x = torch.randn(1, 6, 8)
    other = x.clone()
    other[:, -1] += 1
    return torch.equal(function(x)[:, :-1], function(other)[:, :-1])


def only_the_first(function):
    x = torch.randn(1, 6, 8)
    other = x.clone()
    other[:, 0] += 1
    return torch.equal(function(x)[:, 1:], function(other)[:, 1:])


def block_with(second):
    def block(x, attention, feed_forward, attention_norm, ffn_norm):
        h = x + attention(attention_norm(x))
        return second(x, h, feed_forward, attention_norm, ffn_norm)

    return block


def post_norm(x, attention, feed_forward, attention_norm, ffn_norm):
    h = attention_norm(x + attention(x))
    return ffn_norm(h + feed_forward(h))


def adds_in_place(x, attention, feed_forward, attention_norm, ffn_norm):
    x += attention(attention_norm(x))
    x += feed_forward(ffn_norm(x))
    return x


def top_p_with(keep):
    def stays(probabilities, p):
        falling, order = probabilities.sort(descending=True)
        kept = keep(falling, p)
        return torch.zeros_like(kept).scatter(0, order, kept)

    return stays


WRONG = {  # exercise: {words of the message: the answer that gets it}
    "tokenizer.tokens_saved": {
        "how much more text a token holds": lambda before, after: after / before - 1,
        "the share of tokens that is left": lambda before, after: before / after,
        "as a fraction a quarter is 0.25": lambda before, after: 100 * (1 - before / after),
        "a difference of characters is no share": lambda before, after: after - before,
    },
    "tokenizer.shown": {
        "half a character was shown": decode_each,
        "but the text is": ignore_halves,
        "was whole by then": wait_for_the_end,
        "at token 1 '' was shown": all_or_nothing,
        "a list of strings": lambda pieces: b"".join(pieces).decode(),
    },
    "config.count_params": {
        "embedding and output are one table": count_with(),
        "the last norm": count_with("tied", last=0),
        "each block has two norms": count_with("tied", norms=1),
        "no norm was counted": count_with("tied", norms=0, last=0),
        "counted for all query heads": count_with("tied", kv="all"),
        "three matrices, two were counted": count_with("tied", matrices=2),
        "two tables here": count_with(1),
    },
    "config.ffn_hidden": {
        "not to the nearest": hidden_with(lambda h, m: m * round(h / m)),
        "round up, not down": hidden_with(lambda h, m: m * (h // m)),
        "`%` is the rest": hidden_with(lambda h, m: m * ((h + m - 1) % m)),
        "the multiplier is missing": lambda d, _, m: dl.ffn_hidden_dim(d, m),
        "cut to a whole number after the two thirds": lambda d, x, m: m * -(-int(x * 8 * d / 3) // m),
        "two thirds are missing": lambda d, x, m: m * -(-int(x * 4 * d) // m),
    },
    "norm.rms_norm": {
        "the weight is not applied": lambda x, w, e: rms(x, 1, e),
        "outside the root": lambda x, w, e: x / (x.square().mean(-1, keepdim=True).sqrt() + e) * w,
        "eps is not used": lambda x, w, e: rms(x, w, 0),
        "not by its root": lambda x, w, e: x / (x.square().mean(-1, keepdim=True) + e) * w,
        "the sum of the squares": lambda x, w, e: x / (x.square().sum(-1, keepdim=True) + e).sqrt() * w,
        "that is LayerNorm": lambda x, w, e: F.layer_norm(x, x.shape[-1:], w, eps=e),
        "as LayerNorm does": lambda x, w, e: x / (x.var(-1, correction=0, keepdim=True) + e).sqrt() * w,
        "runs over the tokens": lambda x, w, e: rms(x, w, e, axis=1),
        "square them in float32": rms,
    },
    "norm.fold_weight": {
        "the rows were scaled": lambda m, w: m * w[:, None],
        "it divides": lambda m, w: m / w,
        "nothing was folded": lambda m, w: m,
        "it changed the matrix": in_place,
    },
    "rope.rotate": {
        "as Hugging Face lays it out": turn_halves,
        "the other way round": lambda x, p, t: turn(x, p, t, sign=-1),
        "the frequencies fall too slowly": lambda x, p, t: turn(x, p, t, exponent=1),
        "it counts from 0": lambda x, p, t: turn(x, torch.arange(len(p)), t),
        "theta is not used": lambda x, p, t: turn(x, p, 10_000.0),
        "nothing is turned": lambda x, p, t: x,
    },
    "rope.to_half_split": {
        "across all heads": lambda w, n: torch.cat((w[0::2], w[1::2])),
        "that is the way back": lambda w, n: w.view(n, 2, -1, w.shape[1]).transpose(1, 2).reshape(w.shape),
        "the rows are where they were": lambda w, n: w,
        "the halves are exchanged": lambda w, n: torch.cat(
            (w.unflatten(0, (n, -1))[:, 1::2], w.unflatten(0, (n, -1))[:, 0::2]), dim=1
        ).flatten(0, 1),
    },
    "attention.attend": {
        "tiled": attend_with(repeat=tile),
        "not scaled": attend_with(scale=lambda q: 1),
        "not by its root": attend_with(scale=lambda q: q.shape[-1]),
        "the root of dim": attend_with(scale=lambda q: (q.shape[1] * q.shape[-1]) ** 0.5),
        "the mask is not used": attend_with(mask=False),
        "after the softmax": attend_with(late=True),
        "a mask of its own": own_mask,
    },
    "attention.pool_heads": {
        "far apart": pool_far_apart,
        "added up": pool_with(lambda heads: heads.sum(dim=1)),
        "the first head": pool_with(lambda heads: heads[:, 0]),
        "the shape (1, 4, 5)": lambda w, n, p: w.view(n, -1, w.shape[1]).mean(dim=0, keepdim=True),
    },
    "feed_forward.swiglu": {
        "on the values": lambda x, g, u, d: (x @ g.T * F.silu(x @ u.T)) @ d.T,
        "a sigmoid": gated(torch.sigmoid),
        "a ReLU": gated(F.relu),
        "a GELU": gated(F.gelu),
        "were added": gated(F.silu, torch.add),
        "bilinear": gated(lambda gate: gate),
        "after the product": lambda x, g, u, d: F.silu(x @ g.T * (x @ u.T)) @ d.T,
        "the gate is missing": lambda x, g, u, d: F.silu(x @ u.T) @ d.T,
        "the values are missing": lambda x, g, u, d: F.silu(x @ g.T) @ d.T,
    },
    "feed_forward.is_position_wise": {
        "a shuffle of its input only shuffles": only_shuffles,
        "causal attention mixes": only_the_last,
        "attends to the last one": only_the_first,
        "attention to all tokens": lambda function: True,
        "a feed-forward works on each token alone": lambda function: False,
    },
    "transformer.block": {
        "starts from x": block_with(lambda x, h, f, n, m: x + f(m(h))),
        "both parts read x": block_with(lambda x, h, f, n, m: h + f(m(x))),
        "post-norm": post_norm,
        "reads without a norm": block_with(lambda x, h, f, n, m: h + f(h)),
        "one norm serves both": block_with(lambda x, h, f, n, m: h + f(n(h))),
        "the last sum is missing": block_with(lambda x, h, f, n, m: f(m(h))),
        "it changed x itself": adds_in_place,
        "the norms are exchanged": lambda x, a, f, n, m: (h := x + a(m(x))) + f(n(h)),
    },
    "transformer.top_p": {
        "nothing is left": top_p_with(lambda falling, p: falling.cumsum(0) <= p),
        "passes p is missing": top_p_with(lambda falling, p: (falling.cumsum(0) <= p) | (torch.arange(5) == 0)),
        "in falling order": lambda q, p: (
            q.sort(descending=True).values.cumsum(0) - q.sort(descending=True).values <= p
        ),
        "each probability was compared": lambda q, p: q >= p,
        "where True (stays) or False": lambda q, p: q * (q > 0.1),
    },
}


def test_each_part_has_two_exercises_and_a_file():
    assert {name.split(".")[0] for name in ALL} == set(STEMS)
    for stem in STEMS:
        assert len(exercises(stem)) == 2
        assert Path(checks.__file__).with_name(f"{stem}.py").is_file()


@pytest.mark.parametrize("name", ALL)
def test_the_solution_passes_and_the_stub_is_open(name):
    assert ALL[name].mark(ALL[name].solution).state == "right"
    verdict = ALL[name].mark(lambda *args: None)
    assert verdict.state == "open"
    assert "return" in verdict.feedback


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, found in WRONG.items() for words in found])
def test_feedback_names_the_mistake_of_a_wrong_answer(name, words):
    verdict = ALL[name].mark(WRONG[name][words])
    assert verdict.state == "wrong"
    assert words in verdict.feedback


def test_every_exercise_has_wrong_answers_of_its_own():
    assert WRONG.keys() == ALL.keys()
    assert all(len(answers) >= 4 for answers in WRONG.values())


@pytest.mark.parametrize("name", ALL)
def test_feedback_gives_the_error_of_an_answer_that_raises(name):
    def answer(*args):
        raise IndexError("too many dice")

    verdict = ALL[name].mark(answer)
    assert verdict.state == "wrong"
    assert "IndexError: too many dice" in verdict.feedback


@pytest.mark.parametrize("name", ALL)
def test_help_folds_hints_and_the_running_solution(name, monkeypatch):
    shown = []
    monkeypatch.setattr("decoding_llama3.lessons.exercise.display", lambda text: shown.append(text.data))
    ALL[name].help()
    assert shown[0].count("<details>") == len(ALL[name].hints) + 1 >= 3
    assert f"def {ALL[name].solution.__name__}" in shown[0]


def test_calling_an_exercise_prints_the_verdict(capsys):
    exercise = ALL["norm.rms_norm"]
    exercise(exercise.solution)
    exercise(lambda x, weight, eps: x)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "right"
    assert wrong.startswith("not yet: ")


def test_shape_dtype_and_kind_are_asked_before_numbers():
    right = torch.zeros(2, 3)
    for found, words in (
        ([0], "a list, where a tensor"),
        (torch.zeros(3, 2), r"shape \(3, 2\), expected was \(2, 3\)"),
        (torch.zeros(2, 3).half(), "float16, expected was torch.float32"),
    ):
        with pytest.raises(Mistake, match=words):
            expect_like(found, right)
    with pytest.raises(Mistake, match="differ by up to 2"):
        expect_close(right + 2, right, {"not this": right + 1})
    with pytest.raises(Mistake, match="returns True, where a number"):
        expect_number(True, 1, {}, "x")
    with pytest.raises(Mistake, match="returns 2, expected was 1"):
        expect_number(2, 1, {"three": 3}, "x")
