"""Part 1 - exercises on tokens."""

import codecs

from decoding_llama3.lessons.exercise import Exercise, Mistake, expect_number


def _solve_tokens_saved(before, after):
    return 1 - before / after


def _check_tokens_saved(answer):
    for before, after in ((3.17, 3.94), (2.0, 4.0), (5.0, 4.0)):
        known = {
            "this is how much more text a token holds; asked was how many fewer tokens a text needs": after
            / before
            - 1,
            "this is the share of tokens that is left; asked was the share that is saved": before / after,
            "the share came out in per cent; as a fraction a quarter is 0.25": 100 * (1 - before / after),
            "a difference of characters is no share: divide": after - before,
        }
        of = f"{before} and {after} characters per token"
        expect_number(answer(before, after), 1 - before / after, known, of, tolerance=1e-6)
    if abs(answer(4.0, 4.0)) > 1e-9:
        raise Mistake("with the same characters per token nothing is saved: expected was 0")


tokens_saved = Exercise(
    _check_tokens_saved,
    _solve_tokens_saved,
    (
        "A text of n characters has n / 3.17 tokens before. How many has it after?",
        "Divide the second number of tokens by the first: n falls out. What is *saved* is the rest to 1.",
    ),
)


def _solve_shown(pieces):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(piece) for piece in pieces]


def _check_shown(answer):
    cases = {
        "letters alone": [b"Once", b" upon", b" a"],
        "a llama in three tokens": [b"a", b" \xf0\x9f", b"\xa6", b"\x99", b"!"],
        "an accent in two": [b"K\xc3", b"\xb6nig"],
    }
    for name, pieces in cases.items():
        found, text = answer(list(pieces)), b"".join(pieces).decode()
        if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
            raise Mistake("a list of strings was expected, one for each token")
        if len(found) != len(pieces):
            raise Mistake(f"with {name}: {len(pieces)} tokens came, but {len(found)} strings were returned")
        joined = "".join(found)
        if "\ufffd" in joined:
            raise Mistake(
                f"with {name}: half a character was shown as \ufffd; keep its bytes until the rest comes"
            )
        if joined != text:
            raise Mistake(f"with {name}: all strings together are {joined!r}, but the text is {text!r}")
        for i, (ours, theirs) in enumerate(zip(_solve_shown(pieces), found, strict=True)):
            if theirs != ours:
                raise Mistake(f"with {name}: at token {i} {theirs!r} was shown, and {ours!r} was whole by then")


shown = Exercise(
    _check_shown,
    _solve_shown,
    (
        "Keep the bytes that are not yet a character, and put them before the next token's.",
        "Python has a decoder that remembers: `codecs.getincrementaldecoder`.",
    ),
)
