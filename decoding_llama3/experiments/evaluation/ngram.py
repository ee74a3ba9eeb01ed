"""Byte n-grams with Witten-Bell smoothing: what the counts of a text alone predict.

    p_k(w | h) = (c(hw) + T(h) p_{k-1}(w | h')) / (c(h) + T(h)),    p_0(w) = 1 / 256

The context h is the k-1 bytes before w, h' the same without its first byte; c counts in the training text, and
T(h) is how many different bytes follow h there. A context that nothing follows there leaves w to the order below.
Source: Witten and Bell 1991, IEEE Transactions on Information Theory 37(4), method C; here interpolated.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

MAX_ORDER = 9


def ngram_bits_per_byte(training: bytes, text: bytes, max_order: int = MAX_ORDER) -> list[float]:
    """Bits per byte of `text` for the orders 1 to `max_order`, in this order; see `ngram_probabilities`."""
    return (-np.log2(ngram_probabilities(training, text, max_order)).mean(axis=1)).tolist()


def ngram_probabilities(
    training: bytes, text: bytes, max_order: int = MAX_ORDER
) -> Float[np.ndarray, "orders bytes"]:
    """The probability that order 1, 2, ... gives each byte of `text`, after the bytes of `text` before it.

    The first bytes of `text`, which have no full context, are left to the order below. An empty text, or an
    order that is too high, raises ValueError.
    """
    if not 1 <= max_order <= MAX_ORDER:
        raise ValueError(f"the order of an n-gram is 1 to {MAX_ORDER}, found {max_order}: give one of these")
    for name, part in (("training text", training), ("text to measure", text)):
        if not part:
            raise ValueError(f"the {name} is empty: give at least one byte")
    symbols, trained = np.frombuffer(text, np.uint8), np.frombuffer(training, np.uint8)
    # Only the contexts of `text` are numbered: of the training text, each order keeps the places that stand after
    # one of them, so that no array is longer than the text, whatever the order, and the numbers stay small.
    contexts, places = np.zeros(len(symbols), np.int64), np.arange(len(trained))
    after = np.zeros(len(trained), np.int64)
    rows = [np.full(len(symbols), 1 / 256)]
    for order in range(1, max_order + 1):
        grams, trained_grams = contexts * 256 + symbols[order - 1 :], after * 256 + trained[places]
        lower = rows[-1]
        interpolated = _interpolate(grams, trained_grams, lower[order - 1 :])
        rows.append(np.concatenate([lower[: order - 1], interpolated]))
        names, contexts = np.unique(grams[:-1], return_inverse=True)
        index, found = _find(names, trained_grams)
        found &= places + 1 < len(trained)
        places, after = places[found] + 1, index[found]
    return np.stack(rows[1:])


def _interpolate(
    grams: Int[np.ndarray, " places"], trained: Int[np.ndarray, " trained"], lower: Float[np.ndarray, " places"]
) -> Float[np.ndarray, " places"]:
    # A gram is context * 256 + byte.
    kinds, counts = np.unique(trained, return_counts=True)
    index, found = _find(kinds, grams)
    n_contexts = grams.max(initial=0) // 256 + 1
    c_h = np.bincount(kinds // 256, weights=counts, minlength=n_contexts)[grams // 256]
    t_h = np.bincount(kinds // 256, minlength=n_contexts)[grams // 256]
    c_hw = np.where(found, np.append(counts, 0)[index], 0)
    return np.where(c_h > 0, (c_hw + t_h * lower) / np.maximum(c_h + t_h, 1), lower)


def _find(
    table: Int[np.ndarray, " sorted"], keys: Int[np.ndarray, " keys"]
) -> tuple[Int[np.ndarray, " keys"], Bool[np.ndarray, " keys"]]:
    """Where in the sorted `table` each key stands, and whether it does; keys are not negative."""
    index = np.searchsorted(table, keys)
    return index, np.append(table, -1)[index] == keys
