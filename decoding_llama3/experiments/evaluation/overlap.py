"""Word sequences that texts share with the training text."""

import re
from itertools import pairwise

import numpy as np
from jaxtyping import Int

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, apostrophes only between them


def words_in(text: str) -> list[str]:
    """Lower-case words: runs of letters and digits, with an apostrophe only between them; all else separates."""
    return _WORD.findall(text.lower())


def overlap(texts: list[str], training: dict[str, str]) -> dict:
    """Share of the 8-word sequences in `texts` that stand in a `training` file, and the longest that does.

    Every place counts, not every different sequence; none runs from one text into the next. Words: `words_in`.
    """
    numbers, starts, vocabulary = _numbered([*texts, *training.values()])
    split = starts[len(texts)]
    eights = numbers
    for length in (1, 2, 4):
        eights = _joined(eights, eights[length:])
    n_eights = sum(max(0, end - start - 8) for start, end in pairwise(starts[: len(texts) + 1]))
    n_shared = len(_shared(eights, split))
    length, place = _longest(numbers, split)
    file = np.searchsorted(starts, place, side="right") - 1 - len(texts)
    return {
        "sequences": int(n_eights),
        "in_training": n_shared,
        "share": round(n_shared / n_eights, 6) if n_eights else 0.0,
        "longest": {
            "words": length,
            "text": " ".join(vocabulary[number] for number in numbers[place : place + length]),
            "file": list(training)[file] if length else None,
        },
    }


def _numbered(texts: list[str]) -> tuple[Int[np.ndarray, " words"], list[int], list[str]]:
    """A number for each word of all texts, where each text starts, and the word of each number.

    After each text stands a number that comes nowhere else, so that no sequence across it occurs twice.
    """
    numbers, flat, starts = {}, [], [0]
    for i, text in enumerate(texts):
        flat += [numbers.setdefault(word, len(numbers)) for word in words_in(text)]
        flat.append(numbers.setdefault(f"<end of {i}>", len(numbers)))  # no word has such signs
        starts.append(len(flat))
    return np.array(flat), starts, list(numbers)


def _joined(first: Int[np.ndarray, " places"], then: Int[np.ndarray, " fewer"]) -> Int[np.ndarray, " fewer"]:
    """Numbers of sequences from those of their two parts: equal where both are (Karp, Miller, Rosenberg 1972)."""
    pairs = first[: len(then)] * (then.max(initial=0) + 1) + then
    return np.unique(pairs, return_inverse=True)[1]


def _shared(sequences: Int[np.ndarray, " places"], split: int) -> Int[np.ndarray, " shared"]:
    """The places before `split` whose sequence also stands at or after it."""
    return np.isin(sequences[:split], sequences[split:]).nonzero()[0]


def _longest(numbers: Int[np.ndarray, " words"], split: int) -> tuple[int, int]:
    """Length of the longest sequence on both sides of `split`, and where it first stands after it."""
    doubled = [numbers]  # the sequences of 1, 2, 4, ... words; of the last, none is on both sides
    while len(_shared(doubled[-1], split)):
        doubled.append(_joined(doubled[-1], doubled[-1][2 ** (len(doubled) - 1) :]))
    length, best = 0, np.zeros_like(numbers)
    for power in reversed(range(len(doubled) - 1)):
        longer = _joined(best, doubled[power][length:])
        if len(_shared(longer, split)):
            length, best = length + 2**power, longer
    if not length:
        return 0, split
    return length, split + int((best[split:] == best[_shared(best, split)[0]]).argmax())
