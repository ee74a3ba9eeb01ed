"""A conversation as token ids, which never outgrows the context of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decoding_llama3.tokenizer import Tokenizer


class Conversation:
    """The system message, if there is one, then turns of a message and its answer.

    Answers stay the ids that the model gave, so that a generator need not read them again. `answer_tokens` is the
    room that each answer is to have; of a context of fewer than four times as many tokens it is a quarter. A
    tokenizer without a chat format and a system message that leaves no room raise ValueError.
    """

    def __init__(self, tokenizer: Tokenizer, context: int, answer_tokens: int, system: str | None = None) -> None:
        self.tokenizer, self.context = tokenizer, context
        self.room = min(answer_tokens, context // 4)
        self._system: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        self._turns: list[list[dict[str, Any]]] = []
        n = len(self._prompt([], ""))
        if n + self.room >= context:
            raise ValueError(
                f"the system message has about {n} tokens and an answer {self.room}, which leaves no room for a "
                f"message in the context of {context}: shorten it"
            )

    def prompt(self, message: str) -> tuple[list[int], int]:
        """All ids up to where the answer to `message` starts, and how many of the oldest turns had to go for it.

        A message that is too long even alone raises ValueError, and nothing has changed.
        """
        n_excess = len(self._prompt([], message)) + self.room - self.context
        if n_excess > 0:
            raise ValueError(
                f"the message is {n_excess} tokens too long for the context of {self.context} with an answer of "
                f"{self.room}: shorten it"
            )
        n_dropped = 0
        while len(ids := self._prompt(self._turns[n_dropped:], message)) + self.room > self.context:
            n_dropped += 1
        del self._turns[:n_dropped]
        return ids, n_dropped

    @property
    def answer(self) -> list[int]:
        """The ids of the last answer; none before the first turn."""
        return self._turns[-1][1]["content"] if self._turns else []

    def add(self, message: str, answer: list[int]) -> None:
        """Remember a turn: a message and the ids of its answer."""
        self._turns.append([{"role": "user", "content": message}, {"role": "assistant", "content": answer}])

    def _prompt(self, turns: list[list[dict[str, Any]]], message: str) -> list[int]:
        past = [said for turn in turns for said in turn]
        return self.tokenizer.encode_chat([*self._system, *past, {"role": "user", "content": message}])
