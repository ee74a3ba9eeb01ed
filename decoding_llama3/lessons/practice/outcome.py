"""What comes of a function on given inputs: a value, an error with the line that raised it, or nothing in time."""

import copy
import inspect
import io
import linecache
import textwrap
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from decoding_llama3.lessons.practice.limit import TookTooLong, time_limit

SECONDS = 10.0


@dataclass(frozen=True)
class Outcome:
    """`error` is "" or what was raised, `line` the learner's own line that led there; `late`: it did not return.

    `changed` names the arguments that are no longer what they were.
    """

    value: object = None
    error: str = ""
    line: str = ""
    late: bool = False
    changed: tuple[str, ...] = ()


def outcome_of(function: Callable, arguments: Sequence[object], seconds: float | None = SECONDS) -> Outcome:
    """Call `function` on copies of `arguments`. Whatever it does, nothing is raised; None sets no limit of time.

    What it prints is dropped: a check calls it many times.
    """
    elsewhere = getattr(function, "outcome", None)  # of an answer that runs in a process of its own
    if elsewhere is not None:
        return elsewhere(arguments, seconds)
    given = copied(arguments)
    try:
        with nullcontext() if seconds is None else time_limit(seconds), redirect_stdout(io.StringIO()):
            value = function(*given)
    except TookTooLong:
        return Outcome(late=True)
    except (Exception, SystemExit) as error:
        return failed(function, error)
    names = parameter_names(function, len(given))
    changed = (name for name, now, was in zip(names, given, arguments, strict=True) if not identical(now, was))
    return Outcome(value, changed=tuple(changed))


def failed(function: Callable, error: BaseException) -> Outcome:
    """The outcome of a call that raised `error`."""
    text = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
    return Outcome(error=text, line=_own_line(function, error))


def copied(arguments: Sequence[object]) -> list:
    """Copies that share nothing with the originals."""
    return [x.detach().clone() if isinstance(x, Tensor) else copy.deepcopy(x) for x in arguments]


def parameter_names(function: Callable, n: int) -> list[str]:
    """The names of the first `n` arguments; "argument 1" where the function does not tell."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return (names + [f"argument {i + 1}" for i in range(len(names), n)])[:n]


def identical(one: object, other: object) -> bool:
    """Equal to the last bit; nan equals nan."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype
        return alike and torch.equal(one.nan_to_num(12345.0), other.nan_to_num(12345.0))
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        there = other.state_dict()
        return all(identical(tensor, there[name]) for name, tensor in one.state_dict().items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    return type(one) is type(other) and (one is other or not isinstance(one, (int, float, str)) or one == other)


def _own_line(function: Callable, error: BaseException) -> str:
    """The last line of the traceback that lies in the file of `function`."""
    file = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not frames:
        return ""
    text = (frames[-1].line or linecache.getline(frames[-1].filename, frames[-1].lineno or 0)).strip()
    return f"line {frames[-1].lineno}, `{text}`" if text else f"line {frames[-1].lineno}"
