"""Graded exercises: their answers lie in `solutions`, which an edition for students lacks; and draws by name."""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from decoding_llama3.lessons.practice.example import error_clause
from decoding_llama3.lessons.practice.mistake import HandedIn, Mistake, Unanswered
from decoding_llama3.lessons.practice.outcome import outcome_of

Option = TypeVar("Option")
SOLUTIONS = "decoding_llama3.lessons.solutions"


@dataclass(frozen=True)
class Graded:
    """The check `name` of the part's solutions. Where there are none, only whether the answer runs on `sample`.

    `sample` makes the arguments of one call. Given an answer it raises `Mistake`, `Unanswered` or `HandedIn`.
    """

    part: str
    name: str
    sample: Callable[[], tuple]

    def __call__(self, answer: Callable) -> None:
        solutions = find_solutions(self.part)
        if solutions is not None:
            return solutions.CHECKS[self.name](answer)
        if not callable(answer):
            raise Mistake(f"it is {answer!r:.60}, where a function was expected: pass its name, without brackets")
        try:
            inspect.signature(answer).bind(*self.sample())
        except TypeError:
            raise Mistake(
                f"it takes {inspect.signature(answer)}, but is called with {len(self.sample())} arguments"
            ) from None
        found = outcome_of(answer, self.sample())
        if found.late:
            raise Mistake("it has not returned and was interrupted")
        if found.error:
            raise Mistake(error_clause(found))
        if found.value is None:
            raise Unanswered
        raise HandedIn


def find_solutions(part: str) -> ModuleType | None:
    """The module with the solutions of a part, named like its checks; None in an edition without."""
    try:
        return importlib.import_module(f"{SOLUTIONS}.{part}")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(SOLUTIONS):
            raise
        return None


def solution(part: str, name: str) -> Callable | None:
    """The function `my_<name>` of the part's solutions; None in an edition without."""
    solutions = find_solutions(part)
    return None if solutions is None else getattr(solutions, f"my_{name}")


def drawn_by_name(learner: str, options: Sequence[Option], of: str) -> Option:
    """One of `options` by the learner's name: the same each time, another for each exercise `of`."""
    name = " ".join(learner.split()).casefold()
    number = int.from_bytes(hashlib.sha256(f"{of}:{name}".encode()).digest()[:8], "big")
    return options[number % len(options)]
