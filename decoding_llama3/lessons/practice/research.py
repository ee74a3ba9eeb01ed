"""Research exercises: the task is drawn by the learner's name, and the answer is tried on tiny by silencing it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from decoding_llama3.inference.load import load_model
from decoding_llama3.inference.tokenizers.find import load_tokenizer
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.compare import plain
from decoding_llama3.lessons.practice.example import error_clause
from decoding_llama3.lessons.practice.graded import drawn_by_name
from decoding_llama3.lessons.practice.mistake import Mistake, Unanswered
from decoding_llama3.lessons.practice.outcome import outcome_of
from decoding_llama3.lessons.show import TALE
from decoding_llama3.transformer import Transformer

ENOUGH = 0.95  # of the largest damage: two that are as good as equal are both right


@dataclass(frozen=True)
class Research:
    """One question about tiny for each of `options`; `of(learner)` draws one of them.

    `candidates` are all possible answers. In the context `silenced(model, option)` row i of a batch runs without
    what candidate i names; `losses(model, option, n)` gives, of n equal rows, what must rise most, in nats. `form`
    says what an answer is. An answer is right if its damage is at least ENOUGH of that of number `rank`.
    """

    name: str
    options: Sequence[Any]
    task: Callable[[Any], str]
    form: str
    candidates: Sequence[Any]
    silenced: Callable[[Transformer, Any], AbstractContextManager]
    losses: Callable[[Transformer, Any, int], Tensor]
    hints: tuple[str, ...]
    rank: int = 1

    def of(self, learner: str, quiet: bool = False) -> Exercise:
        """The exercise of this learner, whose check raises `Mistake`; prints its task unless `quiet`."""
        option = drawn_by_name(learner, self.options, self.name)
        if not quiet:
            whose = (
                f"{learner.strip()}'s task"
                if learner.strip()
                else "An example, until your name draws your own task"
            )
            print(f"{whose}: {self.task(option)}")
        return Exercise(lambda answer: self._check(answer, option), None, self.hints, graded=True)

    def damages(self, option: Any) -> list[float]:
        """By how many nats the loss rises when tiny lacks what each candidate names; computed once."""
        return _damages(self, self.options.index(option))

    def _check(self, answer: Callable, option: Any) -> None:
        if not callable(answer):
            raise Mistake(f"it is {answer!r:.60}, where a function was expected: pass its name, without brackets")
        found = outcome_of(answer, ())
        if found.late:
            raise Mistake("it has not returned and was interrupted", named=True)
        if found.error:
            raise Mistake(error_clause(found), named=False)
        if found.value is None:
            raise Unanswered
        value = _plain(found.value)
        if value not in self.candidates:
            raise Mistake(f"it returns {found.value!r:.60}, where {self.form} was expected")
        damages = self.damages(option)
        if not self._is_enough(value, damages):
            raise Mistake(self._why(value, damages))

    def _is_enough(self, value: Any, damages: list[float]) -> bool:
        return damages[self.candidates.index(value)] >= ENOUGH * sorted(damages)[-self.rank]

    def _why(self, value: Any, damages: list[float]) -> str:
        turned = value[::-1] if isinstance(value, tuple) else value
        if turned != value and turned in self.candidates and self._is_enough(turned, damages):
            return f"the two are in the wrong order: {self.form} was expected"
        mine, best = damages[self.candidates.index(value)], max(damages)
        changed = "hardly changes the loss" if abs(mine) < 0.05 * best else f"changes the loss by {mine:+.2f} nats"
        more = sum(damage > mine for damage in damages)
        others = "one of the others costs" if more == 1 else f"{more} of the others cost"
        return f"silencing {value} {changed}; {others} more: silence each, and compare"


def _plain(value: object) -> object:
    """Tuples of Python's own numbers, for a learner may return a list or tensors."""
    value = plain(value)
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


@cache
def tiny() -> Transformer:
    """The model that the research is on, loaded once."""
    return load_model("tiny", dtype=torch.float32)


@cache
def tale_ids() -> tuple[int, ...]:
    """The tale as tiny reads it, begin-of-text first."""
    return tuple(load_tokenizer("tiny").encode(TALE, bos=True))


def tale_until(place: int) -> tuple[str, str]:
    """The last words of the tale up to its token number `place`, and the token that follows."""
    ids, decode = tale_ids(), load_tokenizer("tiny").decode
    return "..." + decode(list(ids[max(1, place - 11) : place + 1])), decode([ids[place + 1]])


def word_losses(model: Transformer, ids: Sequence[int], word: int, n: int) -> Tensor:
    """The loss, in nats, of the token `word` after `ids`, in each of n equal rows."""
    logits = model(torch.tensor([ids]).expand(n, -1))[:, -1]
    return -logits.log_softmax(-1)[:, word]


def tale_word_losses(model: Transformer, place: int, n: int) -> Tensor:
    """That of the token of the tale that follows number `place`."""
    ids = tale_ids()
    return word_losses(model, ids[: place + 1], ids[place + 1], n)


def tale_losses(model: Transformer, option: object, n: int) -> Tensor:
    """The mean loss of the whole tale, in nats per token, in each of n equal rows."""
    tokens = torch.tensor([tale_ids()]).expand(n, -1)
    logs = model(tokens)[:, :-1].log_softmax(-1)
    return -logs.gather(-1, tokens[:, 1:, None]).mean(dim=(1, 2))


def opening_losses(model: Transformer, option: object, n: int) -> Tensor:
    """That of ' time' after 'Once upon a'."""
    tokenizer = load_tokenizer("tiny")
    return word_losses(model, tokenizer.encode("Once upon a", bos=True), tokenizer.encode(" time")[0], n)


_cached: dict[tuple[str, int], list[float]] = {}


@torch.no_grad()
def _damages(research: Research, number: int) -> list[float]:
    if (key := (research.name, number)) not in _cached:
        model, option = tiny(), research.options[number]
        whole = research.losses(model, option, 1)
        with research.silenced(model, option):
            _cached[key] = (research.losses(model, option, len(research.candidates)) - whole).tolist()
    return _cached[key]
