"""Part 1 - exercises on tokens and on the loss."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import Graded, solution
from decoding_llama3.lessons.practice.inputs import random
from decoding_llama3.lessons.practice.same_as import Case, SameAs

WORDS = (b"a", b"b", b"c", b"ab", b"bc", b"abc", b"bcc", b"cc", b"abab")
RANKS = {word: rank for rank, word in enumerate(WORDS)}
MORE_RANKS = {b"cccc": 0, b"cc": 1, b"cb": 2, b"bcc": 3, b"cccb": 4, b"bbc": 5}
OTHER_RANKS = {b"t": 0, b"h": 1, b"e": 2, b"r": 3, b"he": 4, b"th": 5, b"er": 6, b"the": 7, b"re": 8, b"ther": 9}


def merged(piece: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    tokens = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        joins = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(tokens)) if a + b in ranks]
        if not joins:
            return tokens
        best = min(joins)[1]
        tokens[best : best + 2] = [tokens[best] + tokens[best + 1]]


def _longest_first(piece: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    tokens, start = [], 0
    while start < len(piece):
        end = next(end for end in range(len(piece), start, -1) if piece[start:end] in ranks or end == start + 1)
        tokens.append(piece[start:end])
        start = end
    return tokens


JOINS = "min(joins)[1]"
merge = Exercise(
    SameAs(
        merged,
        cases=lambda: [
            Case((b"abc", RANKS)),
            Case((b"abcc", RANKS), "where the longest join is not the first"),
            Case((b"bbccccb", MORE_RANKS), "where joins overlap"),
            Case((b"there", OTHER_RANKS), "where a join further right comes first"),
            Case((b"ababcc", RANKS), "where joins are joined again"),
            Case((b"zabz", {b"ab": 0, b"za": 1}), "where the rank is 0"),
            Case((b"abab", {b"ab": 5, b"abab": 3}), "where a join of joins has the lower rank"),
            Case((b"abcab", {b"ab": 1, b"bc": 2, b"abc": 3}), "where one join is made in two places"),
            Case((b"xyz", RANKS), "where nothing can be joined"),
            Case((b"a", RANKS), "for a single byte"),
            Case((b"ccc", RANKS), "where two pairs are equal"),
            Case(("K\u00f6nig".encode(), {b"\xc3\xb6": 7, b"K": 0}), "for a letter of two bytes"),
        ],
        smallest=lambda: [(piece, RANKS) for piece in (b"ab", b"abc", b"bcc", b"ccc")] + [(b"there", OTHER_RANKS)],
        known={
            "the highest rank is joined first; the lowest comes first": ((JOINS, "max(joins)[1]"),),
            "what can be joined is joined from the left; the join with the lowest rank of all comes first": (
                (JOINS, "min(i for _, i in joins)"),
            ),
            "of equal pairs the rightmost is joined; the leftmost comes first": (
                (JOINS, "max(i for rank, i in joins if rank == min(joins)[0])"),
            ),
            "the longest token that fits is taken from the left: joins go by rank, not by length": _longest_first,
            "only one join is made: go on until none is left": (
                ("    while True:", "    for _ in range(2):"),
                (
                    "tokens[best : best + 2] = [tokens[best] + tokens[best + 1]]",
                    "return tokens[:best] + [tokens[best] + tokens[best + 1]] + tokens[best + 2 :]",
                ),
            ),
            "nothing is joined": (("if a + b in ranks]", "if False]"),),
            "whole numbers are returned; a byte as bytes is piece[i:i + 1]": (lambda piece, ranks: list(piece)),
            "the ranks are returned; the tokens themselves were asked": (
                lambda piece, ranks: [ranks.get(token, -1) for token in merged(piece, ranks)]
            ),
            "the whole piece comes back as one token": lambda piece, ranks: [piece],
            "the tokens come joined into one": lambda piece, ranks: b"".join(merged(piece, ranks)),
        },
        kept=("ranks",),
    ),
    solution("tokenizer", "merge"),
    (
        "A list of single bytes: `piece[i : i + 1]`. In a loop, look for the join with the lowest rank.",
        "`tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]` joins two. When is the loop at its end?",
    ),
)


def streamed(pieces: Sequence[bytes]) -> list[str]:
    shown, waiting = [], b""
    for piece in pieces:
        waiting += piece
        whole = len(waiting)
        for back in range(1, min(4, whole) + 1):
            first = waiting[whole - back]
            if first >= 0xC0:
                needed = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
                whole -= back if needed > back else 0
                break
            if first < 0x80:
                break
        shown.append(waiting[:whole].decode())
        waiting = waiting[whole:]
    return shown


def _all_or_nothing(pieces):
    shown, kept = [], b""
    for piece in pieces:
        kept += piece
        try:
            shown.append(kept.decode())
            kept = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown


def _all_so_far(pieces):
    shown = streamed(pieces)
    return ["".join(shown[: i + 1]) for i in range(len(shown))]


CUT = [b"a", b" \xf0\x9f", b"\xa6", b"\x99", b"!"]
shown = Exercise(
    SameAs(
        streamed,
        cases=lambda: [
            Case(([b"Once", b" upon", b" a"],)),
            Case((CUT,), "for a llama in three tokens"),
            Case(([b"K\xc3", b"\xb6nig"],), "for an accent in two"),
            Case(
                ([b"a\xe2\x82", b"\xac\xe2", b"\x82\xac"],), "where a token ends one character and begins the next"
            ),
            Case(([],), "for no token at all"),
        ],
        smallest=lambda: [
            ([b"a"],),
            ([b"\xc3", b"\xb6"],),
            ([b"K\xc3", b"\xb6nig"],),
            ([b"a\xe2\x82", b"\xac\xe2", b"\x82\xac"],),
        ],
        known={
            "half a character is shown as \ufffd: keep its bytes until the rest has come": (
                lambda pieces: [piece.decode(errors="replace") for piece in pieces]
            ),
            "half a character is thrown away: keep its bytes until the rest has come": (
                lambda pieces: [piece.decode(errors="ignore") for piece in pieces]
            ),
            "a token that holds half a character is not decoded at all": (
                lambda pieces: [piece.decode() for piece in pieces]
            ),
            "everything is shown at the end; show each character as soon as it is whole": (
                lambda pieces: [""] * (len(pieces) - 1) + [b"".join(pieces).decode()] * bool(pieces)
            ),
            "a token that ends within a character is held back whole; show what is whole of it": _all_or_nothing,
            "each answer repeats all that was shown before; only what is new was asked": _all_so_far,
            "one text is returned; one per token was asked": lambda pieces: b"".join(pieces).decode(),
            "tokens that show nothing are left out; an empty text stands for them": (
                lambda pieces: [text for text in streamed(pieces) if text]
            ),
            "bytes are returned; texts were asked": lambda pieces: [text.encode() for text in streamed(pieces)],
            "each text comes one token late": lambda pieces: ["", *streamed(pieces)[:-1]] if pieces else [],
            "characters are returned one by one; one text per token was asked": (
                lambda pieces: list("".join(streamed(pieces)))
            ),
            "the bytes are written out as Python shows them; decode them": lambda pieces: [str(p) for p in pieces],
            "bytes are decoded as Latin-1, one character each; the text is UTF-8": (
                lambda pieces: [piece.decode("latin-1") for piece in pieces]
            ),
            "half a character is shown as an escape": (
                lambda pieces: [piece.decode(errors="backslashreplace") for piece in pieces]
            ),
        },
        kept=("pieces",),
    ),
    solution("tokenizer", "shown"),
    (
        "Keep the bytes that are not yet a character, and put them before the next token's.",
        "Python has a decoder that remembers: look into the module `codecs`.",
    ),
)


def cross_entropy(logits: Tensor, target: int) -> float:
    largest = logits.max()
    return (largest + (logits - largest).exp().sum().log() - logits[target]).item()


LOSS = "(largest + (logits - largest).exp().sum().log() - logits[target]).item()"
loss = Exercise(
    SameAs(
        cross_entropy,
        cases=lambda: [
            Case((3 * random(12), 4), tolerance=1e-4),
            Case((torch.zeros(8), 0), "where all are equally probable", tolerance=1e-4),
            Case((300 * random(12, seed=1), 3), "where logits are large: exp(1,000) is infinite", tolerance=1e-4),
            Case((torch.tensor([1000.0, 0.0]), 1), "where the right token is nearly impossible", tolerance=1e-4),
            Case((torch.tensor([-900.0, -901.0]), 1), "where all logits are far below zero", tolerance=1e-4),
        ],
        smallest=lambda: [
            (torch.tensor([0.0, 0.0]), 0),
            (torch.tensor([1.0, 0.0]), 0),
            (torch.tensor([1.0, 0.0]), 1),
            (torch.tensor([1000.0, 0.0]), 0),
        ],
        known={
            "the probability is returned; the loss is minus its logarithm": (
                (LOSS, "logits.softmax(-1)[target].item()"),
            ),
            "the sign is missing: a logarithm of a probability is negative, the loss is not": (
                (LOSS, "logits.log_softmax(-1)[target].item()"),
            ),
            "the loss is in bits; nats use the natural logarithm": (
                (LOSS, "(-logits.log_softmax(-1)[target] / 0.6931471805599453).item()"),
            ),
            "minus the logit is returned; the logits of the others count, too": (
                (LOSS, "(-logits[target]).item()"),
            ),
            "the loss of the most probable token is returned; asked is that of `target`": (
                (LOSS, "(-logits.log_softmax(-1).max()).item()"),
            ),
            "1 minus the probability is returned": ((LOSS, "(1 - logits.softmax(-1)[target]).item()"),),
            "the softmax overflows, exp(1,000) being infinite: subtract the largest logit first": (
                (LOSS, "(-(logits.exp() / logits.exp().sum()).log()[target]).item()"),
            ),
            "the loss of all tokens is averaged; one is right": (
                (LOSS, "(-logits.log_softmax(-1)).mean().item()"),
            ),
            "the entropy is returned: what is expected over all tokens": (
                (LOSS, "torch.special.entr(logits.softmax(-1)).sum().item()"),
            ),
            "all losses are returned; one was asked": ((LOSS, "-logits.log_softmax(-1)"),),
            "the loss of another token is returned: tokens count from 0": (
                (LOSS, "(-logits.log_softmax(-1)[target - 1]).item()"),
            ),
            "the squared distance to a probability of 1 is returned; the loss is a logarithm": (
                (LOSS, "(1 - logits.softmax(-1)[target]).square().item()"),
            ),
            "the logits are divided by their sum; probabilities come by exp": (
                (LOSS, "(-(logits / logits.sum())[target].log()).item()"),
            ),
            "the perplexity is returned, exp of the loss": (
                (LOSS, "(-logits.log_softmax(-1)[target]).exp().item()"),
            ),
            "the logarithm has base 10": ((LOSS, "(-logits.log_softmax(-1)[target] / 2.302585092994046).item()"),),
            "the softmax is taken twice: of probabilities again": (
                (LOSS, "(-logits.softmax(-1).log_softmax(-1)[target]).item()"),
            ),
        },
        kept=("logits",),
    ),
    solution("tokenizer", "loss"),
    (
        "The loss is minus the natural logarithm of the right token's probability.",
        "exp(logit - largest) never overflows, and the quotient is the same.",
    ),
)

bits_per_byte = Exercise(
    Graded("tokenizer", "bits_per_byte", lambda: (2.0, 300, 1000)),
    solution("tokenizer", "bits_per_byte"),
    ("How many nats has the whole text? How many has a byte of it?", "A bit is ln 2 = 0.693 nats."),
    graded=True,
)

tokens_saved = Exercise(
    Graded("tokenizer", "tokens_saved", lambda: (3.17, 3.94)),
    solution("tokenizer", "tokens_saved"),
    (
        "A text of n characters has n / 3.17 tokens before. How many has it after?",
        "What is *saved* is the rest to 1.",
    ),
    graded=True,
)
