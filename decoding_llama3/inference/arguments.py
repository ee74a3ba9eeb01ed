"""What callers pass to generation, judged before any work: token ids, counts, temperatures, seeds."""

import math
import operator
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

from torch import Tensor


def check_prompt(ids: Iterable[int] | Tensor, vocab_size: int, context: int, n_past: int = 0) -> list[int]:
    """The prompt as a list of ids below `vocab_size`: one at least, and no more than fit into the context.

    Raises TypeError for what is no sequence of ids, ValueError for wrong ids or too many.
    """
    prompt = check_ids("the prompt", ids, vocab_size)
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token, for example the begin-of-text token")
    if n_past + len(prompt) > context:
        before = f" after {n_past} others" if n_past else ""
        raise ValueError(
            f"the prompt has {len(prompt)} tokens{before}, the model's context {context}: shorten the prompt"
        )
    return prompt


def check_ids(name: str, ids: Iterable[int] | Tensor | int, vocab_size: int) -> list[int]:
    """Token ids of one text as a list, from any sequence, array or tensor of whole numbers, or one number alone.

    Raises TypeError where an entry is no whole number, ValueError where it is no id of the vocabulary.
    """
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"{name} is text, found {ids!r:.40}: encode it with the model's tokenizer first")
    listed: Any = getattr(ids, "tolist", lambda: ids)()  # of tensors and numpy arrays
    values = listed if isinstance(listed, Iterable) else [listed]
    return [_check_id(name, value, vocab_size) for value in values]


def check_whole(name: str, value: int, low: int) -> int:
    """`value` as an int of at least `low`; raises TypeError for another type, ValueError for less."""
    number = _whole(f"{name} is", value)
    if number < low:
        raise ValueError(f"{name} must be {low} or more, found {number}")
    return number


def check_real(name: str, value: float, expected: str, is_right: Callable[[float], bool]) -> float:
    """`value` as a float; raises TypeError if it is no number, ValueError if it is not `expected`."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is a number, found {value!r:.40}")
    number = float(value)
    if not math.isfinite(number) or not is_right(number):
        raise ValueError(f"{name} must be {expected}, found {value}")
    return number


def check_seed(seed: int | None) -> int | None:
    """A seed that torch takes: 64 bits, with or without sign; raises TypeError or ValueError for others."""
    if seed is None:
        return None
    number = _whole("a seed is", seed)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"a seed has at most 64 bits, found {number!r:.40}: take one from 0 to 2**64 - 1")
    return number


def _check_id(name: str, value: Any, vocab_size: int) -> int:
    if isinstance(value, (list, tuple, Tensor)):
        raise TypeError(f"{name} has the ids of one text, found {value!r:.40} in it: pass one row, such as ids[0]")
    token = _whole(f"each id of {name} is", value)
    if not 0 <= token < vocab_size:
        raise ValueError(
            f"token id {token!r:.40} in {name} is outside the model's 0 to {vocab_size - 1}: was the text encoded "
            "by the tokenizer of another model?"
        )
    return token


def _whole(what: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} a whole number, found {value!r:.40}") from None
