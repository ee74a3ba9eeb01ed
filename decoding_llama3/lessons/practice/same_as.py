"""A check by comparison with a right function, which names the mistake of an answer that differs."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from decoding_llama3.lessons.practice.compare import difference, is_telling, same
from decoding_llama3.lessons.practice.errors import mistake_behind
from decoding_llama3.lessons.practice.example import error_clause, smallest_example
from decoding_llama3.lessons.practice.mistake import Mistake, Unanswered
from decoding_llama3.lessons.practice.outcome import SECONDS, Outcome, outcome_of, parameter_names
from decoding_llama3.lessons.practice.variants import edited, variants

# How a known mistake is given: the changes `(old, new)` of the right function's source, or a function.
Known = tuple[tuple[str, str], ...] | Callable


@dataclass(frozen=True)
class Case:
    """One input; `what` completes "right so far, but not ...", such as "in bfloat16".

    `equal` is the share of numbers that must agree to the last bit, where the order of rounding matters.
    """

    arguments: tuple
    what: str = ""
    tolerance: float | None = None
    equal: float = 0

    def agree(self, found: object, right: object) -> bool:
        """Whether two results are the same on this case."""
        if not same(found, right, self.tolerance):
            return False
        return not self.equal or (found == right).float().mean().item() >= self.equal  # type: ignore[attr-defined]


def as_it_is(function: Callable) -> Callable:
    return function


@dataclass(frozen=True)
class SameAs:
    """Raise `Mistake` unless an answer gives on every case what the right function gives.

    `right` is a function whose source is at hand: its changes are what unknown mistakes are compared with. `adapt`
    turns it, and each of its changes, into a function with the exercise's parameters. `observe` says what is
    compared where that is more than the result: it is put around the right function, all wrong ones and the
    answer. `known` maps the sentence for a mistake to what makes it. `smallest` yields inputs, small ones first,
    for the example. `kept` names arguments that others still need unchanged. `properties` are asked last, of the
    answer; each raises `Mistake`.
    """

    right: Callable
    cases: Callable[[], Sequence[Case]]
    smallest: Callable[[], Iterable[tuple]]
    known: Mapping[str, Known] = field(default_factory=dict)
    adapt: Callable[[Callable], Callable] = as_it_is
    observe: Callable[[Callable], Callable] = as_it_is
    kept: tuple[str, ...] = ()
    properties: tuple[Callable[[Callable], None], ...] = ()
    shows_right: bool = True

    def __call__(self, answer: Callable) -> None:
        cases = self.cases()
        check_signature(answer, self.adapt(self.right), cases[0].arguments)
        asked, answer = answer, self.observe(answer)
        for case in cases:
            found, right = outcome_of(answer, case.arguments), outcome_of(self.function, case.arguments, None)
            if found.late:
                raise Mistake(f"it has not returned after {SECONDS:.0f} s and was interrupted")
            if found.error or not case.agree(found.value, right.value):
                if self._is_stub(answer, found, cases):
                    raise Unanswered
                raise self._diagnosed(answer, case, found, right)
            if touched := [name for name in found.changed if name in self.kept]:
                raise Mistake(
                    f"the result is right, but your function changes its argument {touched[0]}, which others "
                    "still need: work on a copy"
                )
        for check in self.properties:
            check(asked)

    @property
    def function(self) -> Callable:
        """The right function, with the exercise's parameters, as it is observed."""
        return self.observe(self.adapt(self.right))

    def mistakes(self) -> dict[str, Callable]:
        """The known mistakes as functions with the exercise's parameters."""
        return {sentence: self._made(known) for sentence, known in self.known.items()}

    def _is_stub(self, answer: Callable, found: Outcome, cases: Sequence[Case]) -> bool:
        """Whether nothing at all comes back, on any case."""
        if found.value is not None or found.error:
            return False
        return all(outcome_of(answer, case.arguments) == Outcome() for case in cases)

    def _made(self, known: Known) -> Callable:
        return self.observe(known if callable(known) else self.adapt(edited(self.right, *known)))

    def _diagnosed(self, answer: Callable, case: Case, found: Outcome, right: Outcome) -> Mistake:
        named = self._name(answer, case, found) or mistake_behind(found.error)
        seen = error_clause(found) if found.error else difference(found.value, right.value, case.tolerance)
        sentence = named or seen
        if named and found.error:
            sentence = f"{named} ({seen})"
        if case.what:
            sentence = f"right so far, but not {case.what}: {sentence}"
        example = smallest_example(answer, self.function, self.smallest(), self.shows_right, bool(found.error))
        return Mistake(sentence, example, named=bool(named) or is_telling(seen))

    def _name(self, answer: Callable, case: Case, found: Outcome) -> str:
        """The known mistake, the two of them, or the changed step, of which the same comes out."""
        fitting = [s for s, wrong in self.mistakes().items() if self._fits(wrong, case, found)]
        if len(fitting) > 1:
            fitting.sort(key=lambda sentence: not self._fits_all(self.mistakes()[sentence], answer))
        if fitting:
            return fitting[0]
        for sentence, wrong in self._pairs():
            if not found.error and self._fits(wrong, case, found):
                return sentence
        for variant in variants(self.right):
            if found.error and variant.rank > 0:
                break
            if self._fits(self.observe(self.adapt(variant.function)), case, found):
                return f"this is what comes out if {variant.sentence}"
        return ""

    def _pairs(self) -> Iterator[tuple[str, Callable]]:
        edits = {sentence: known for sentence, known in self.known.items() if not callable(known)}
        for (one, first), (other, second) in combinations(edits.items(), 2):
            try:
                yield f"two mistakes: {one}; and {other}", self._made((*first, *second))
            except (ValueError, SyntaxError):
                continue

    def _fits(self, wrong: Callable, case: Case, found: Outcome) -> bool:
        made = outcome_of(wrong, case.arguments, seconds=1)  # a changed loop may have no end
        if found.error or made.error:
            return found.error == made.error
        return not made.late and case.agree(found.value, made.value)

    def _fits_all(self, wrong: Callable, answer: Callable) -> bool:
        return all(self._fits(wrong, case, outcome_of(answer, case.arguments)) for case in self.cases())


def check_signature(answer: object, right: Callable, arguments: Sequence[object]) -> None:
    """Raise `Mistake` unless `answer` is a function that takes the arguments of `right`."""
    if not callable(answer):
        raise Mistake(f"it is {answer!r:.60}, where a function was expected: pass its name, without brackets")
    try:
        inspect.signature(answer).bind(*arguments)
    except TypeError:
        wanted = ", ".join(parameter_names(right, len(arguments)))
        raise Mistake(f"it takes {inspect.signature(answer)}, but is called with ({wanted})") from None
    except ValueError:
        return
