"""A conversation as token ids, which never outgrows the context of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decoding_llama3.tokenizer import Tokenizer

END_OF_TURN = "<|eot_id|>"
CHAT_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", END_OF_TURN)


class Conversation:
    """The system message, if there is one, then turns of a message and its answer.

    Answers stay the ids that the model gave, so that a generator need not read them again. `answer_tokens` is the
    room that each answer is to have; of a context of fewer than four times as many tokens it is a quarter. A
    tokenizer without Llama 3's chat tokens and a system message that leaves no room raise ValueError.
    """

    def __init__(self, tokenizer: Tokenizer, context: int, answer_tokens: int, system: str | None = None) -> None:
        if missing := [name for name in CHAT_TOKENS if name not in tokenizer.special_ids]:
            raise ValueError(f"the tokenizer has no {missing[0]}: a base model cannot chat, use 'generate'")
        self.tokenizer, self.context = tokenizer, context
        self.room = min(answer_tokens, context // 4)
        header = tokenizer.encode_chat([])[1:]  # where an answer starts
        messages = [] if system is None else [{"role": "system", "content": system}]
        self._beginning = tokenizer.encode_chat(messages)[: -len(header)]
        self._turns: list[list[int]] = []
        if len(self._beginning) + len(header) + self.room >= context:
            raise ValueError(
                f"the system message has {len(self._beginning)} tokens and an answer {self.room}, which leaves "
                f"no room for a message in the context of {context}: shorten it"
            )

    def prompt(self, message: str) -> tuple[list[int], int]:
        """All ids up to where the answer to `message` starts, and how many of the oldest turns had to go for it.

        A message that is too long even alone raises ValueError, and nothing has changed.
        """
        asked = self.tokenizer.encode_chat([{"role": "user", "content": message}])[1:]
        space = self.context - self.room - len(self._beginning) - len(asked)
        if space < 0:
            raise ValueError(
                f"the message has {len(asked)} tokens, {-space} too many for the context of {self.context} with "
                f"an answer of {self.room}: shorten it"
            )
        n_dropped = 0
        while sum(map(len, self._turns[n_dropped:])) > space:
            n_dropped += 1
        del self._turns[:n_dropped]
        return [*self._beginning, *(token for turn in self._turns for token in turn), *asked], n_dropped

    def add(self, prompt: list[int], answer: list[int]) -> None:
        """Remember the turn that ended with `answer` to the last `prompt`."""
        start = len(self._beginning) + sum(map(len, self._turns))
        self._turns.append([*prompt[start:], *answer, self.tokenizer.special_ids[END_OF_TURN]])
