"""Part 1 - solutions of the exercises on tokens and on the loss, and the checks of the graded ones."""

import codecs
import math
from itertools import pairwise

from decoding_llama3.lessons.practice.same_as import Case, SameAs


def my_merge(piece, ranks):
    tokens = [piece[i : i + 1] for i in range(len(piece))]
    while len(tokens) > 1:
        joined = [a + b for a, b in pairwise(tokens)]
        best = min(range(len(joined)), key=lambda i: ranks.get(joined[i], math.inf))
        if joined[best] not in ranks:
            break
        tokens[best : best + 2] = [joined[best]]
    return tokens


def my_shown(pieces):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(piece) for piece in pieces]


def my_loss(logits, target):
    return -logits.log_softmax(dim=-1)[target].item()


def my_bits_per_byte(loss, n_tokens, n_bytes):
    return loss * n_tokens / n_bytes / math.log(2)


def my_tokens_saved(before, after):
    return 1 - before / after


BITS = "loss * n_tokens / n_bytes / math.log(2)"
BITS_PER_BYTE = SameAs(
    my_bits_per_byte,
    cases=lambda: [
        Case((2.0, 300, 1000), tolerance=1e-6),
        Case((3.4, 250, 1000), "for another loss", tolerance=1e-6),
        Case((1.0, 1000, 1000), "where every token is a byte", tolerance=1e-6),
        Case((0.7, 40, 163), "for another text", tolerance=1e-6),
    ],
    smallest=lambda: [(1.0, 1, 2)],
    known={
        "nats per byte are returned: a bit is ln 2 nats": ((" / math.log(2)", ""),),
        "it is multiplied by ln 2; a nat is more than a bit, so there are more bits than nats": (
            ("/ math.log(2)", "* math.log(2)"),
        ),
        "bits per token are returned": ((BITS, "loss / math.log(2)"),),
        "tokens and bytes are exchanged": ((BITS, "loss * n_bytes / n_tokens / math.log(2)"),),
        "the bits of the whole text are returned": ((" / n_bytes", ""),),
        "the loss is divided by the bytes, without the number of tokens": ((" * n_tokens", ""),),
        "eight bits a byte are divided by; a byte of text counts as one": ((BITS, f"{BITS} / 8"),),
        "it is multiplied by eight": ((BITS, f"{BITS} * 8"),),
        "the logarithm of the loss is taken; it is one already": ((BITS, "math.log2(loss) * n_tokens / n_bytes"),),
        "the loss is raised to a power first; bits and nats differ by a factor": (
            (BITS, "math.exp(loss) * n_tokens / n_bytes / math.log(2)"),
        ),
        "the logarithm has base 10": (("math.log(2)", "math.log10(2)"),),
        "the perplexity per byte is returned, exp of the nats": ((BITS, "math.exp(loss * n_tokens / n_bytes)"),),
        "it is rounded to a whole number": ((BITS, f"float(round({BITS}))"),),
        "the bytes per token are cut to a whole number first": (
            (BITS, "loss / max(n_bytes // n_tokens, 1) / math.log(2)"),
        ),
        "the number of bytes per bit is returned": ((BITS, f"1 / ({BITS})"),),
    },
    shows_right=False,
)

SAVED = "1 - before / after"
TOKENS_SAVED = SameAs(
    my_tokens_saved,
    cases=lambda: [
        Case((3.17, 3.94), tolerance=1e-6),
        Case((2.0, 4.0), "where twice as much fits", tolerance=1e-6),
        Case((5.0, 4.0), "where the new one needs more tokens", tolerance=1e-6),
        Case((4.0, 4.0), "where both are equal", tolerance=1e-6),
    ],
    smallest=lambda: [(1.0, 2.0)],
    known={
        "this is how much more text a token holds; asked is how many fewer tokens a text needs": (
            (SAVED, "after / before - 1"),
        ),
        "this is the share of tokens that is left; asked is the share that is saved": ((SAVED, "before / after"),),
        "this is how many times more text a token holds": ((SAVED, "after / before"),),
        "before and after are exchanged": ((SAVED, "1 - after / before"),),
        "the share came out in per cent; as a fraction a quarter is 0.25": (
            (SAVED, "100 * (1 - before / after)"),
        ),
        "a difference of characters is no share: divide": ((SAVED, "after - before"),),
        "the sign is reversed": ((SAVED, "before / after - 1"),),
        "the difference is divided by the sum; the share is of the tokens before": (
            (SAVED, "(after - before) / (after + before)"),
        ),
        "the logarithm of the quotient is returned": ((SAVED, "math.log(after / before)"),),
        "the share is squared": ((SAVED, "1 - (before / after) ** 2"),),
        "the difference of tokens per character is no share: divide by those before": (
            (SAVED, "1 / before - 1 / after"),
        ),
        "the number is rounded": ((SAVED, "round(1 - before / after, 2)"),),
        "a negative share is cut to zero; the new one may need more": ((SAVED, "max(0.0, 1 - before / after)"),),
        "a negative share has lost its sign": ((SAVED, "abs(1 - before / after)"),),
    },
    shows_right=False,
)

CHECKS = {"bits_per_byte": BITS_PER_BYTE, "tokens_saved": TOKENS_SAVED}
