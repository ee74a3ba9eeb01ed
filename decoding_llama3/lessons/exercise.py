"""Exercises: a stub in the notebook, a check that names the mistake it sees, hints, a solution.

A check calls the learner's function and raises `Mistake` with one sentence. The exercises of a part are in
`checks/<stem>.py`, each with its solution beside it.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from IPython.display import Markdown, display
from torch import Tensor


class Mistake(Exception):
    """What a check sees in an answer, in a sentence to the learner."""


class _Open(Exception):
    """The stub as it stands."""


@dataclass(frozen=True)
class Verdict:
    """`state` is "open", "wrong" or "right"; `feedback` is what the learner reads."""

    state: str
    feedback: str


@dataclass(frozen=True)
class Exercise:
    """A task: `check(answer)` returns if the answer is right and raises `Mistake` if not."""

    check: Callable[[Callable], None]
    solution: Callable
    hints: tuple[str, ...]

    def mark(self, answer: Callable) -> Verdict:
        """Judge `answer`. Whatever it does, nothing is raised: a wrong answer is no error of the notebook."""
        try:
            self.check(_guarded(answer))
        except _Open:
            return Verdict("open", "open: it returns None so far (a forgotten `return` looks the same)")
        except Mistake as mistake:
            return Verdict("wrong", f"not yet: {mistake}")
        return Verdict("right", "right")

    def __call__(self, answer: Callable) -> None:
        """Mark `answer` and print what was found."""
        print(self.mark(answer).feedback)

    def help(self) -> None:
        """Display the hints and the solution, each folded up."""
        source = textwrap.dedent(inspect.getsource(self.solution)).rstrip()
        folded = {f"Hint {i}": hint for i, hint in enumerate(self.hints, 1)}
        folded["Solution"] = f"```python\n{source}\n```"
        display(
            Markdown(
                "\n\n".join(
                    f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
                    for title, text in folded.items()
                )
            )
        )


def expect_like(found: object, right: Tensor) -> None:
    """Raise `Mistake` unless `found` is a tensor of the shape and dtype of `right`."""
    if not isinstance(found, Tensor):
        raise Mistake(f"it returns a {type(found).__name__}, where a tensor was expected")
    if found.shape != right.shape:
        raise Mistake(f"the result has the shape {tuple(found.shape)}, expected was {tuple(right.shape)}")
    if found.dtype != right.dtype:
        raise Mistake(f"the result is {found.dtype}, expected was {right.dtype}")


def expect_close(found: Tensor, right: Tensor, known: Mapping[str, Tensor], tolerance: float = 1e-4) -> None:
    """Raise `Mistake` unless all numbers agree; `known` maps the sentence for a mistake to its result."""
    expect_like(found, right)
    if _agree(found, right, tolerance):
        return
    for sentence, wrong in known.items():
        if wrong.shape == found.shape and _agree(found, wrong, tolerance):
            raise Mistake(sentence)
    largest = (found.double() - right.double()).abs().max().item()
    raise Mistake(f"the shape is right, the numbers are not: they differ by up to {largest:.2g}")


def expect_number(found: object, right: float, known: Mapping[str, float], of: str, tolerance: float = 0) -> None:
    """Raise `Mistake` unless `found` is the number `right` (relative `tolerance`), `of` says of what."""
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise Mistake(f"for {of} it returns {found!r}, where a number was expected")
    if abs(found - right) <= tolerance * abs(right):
        return
    for sentence, wrong in known.items():
        if abs(found - wrong) <= tolerance * abs(wrong):
            raise Mistake(f"{sentence} (found with {of})")
    raise Mistake(f"for {of} it returns {found:,}, expected was {right:,}")


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal random numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _agree(found: Tensor, right: Tensor, tolerance: float) -> bool:
    return torch.allclose(found.double(), right.double(), rtol=tolerance, atol=tolerance)


def _guarded(answer: Callable) -> Callable:
    def call(*args, **kwargs):
        try:
            result = answer(*args, **kwargs)
        except Exception as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
            raise Mistake(f"on {_shapes(args)} it stops with {reason}") from error
        if result is None:
            raise _Open
        return result

    return call


def _shapes(args: tuple) -> str:
    shapes = (f"a tensor {tuple(arg.shape)}" if isinstance(arg, Tensor) else None for arg in args)
    return ", ".join(filter(None, shapes)) or "the first input"
