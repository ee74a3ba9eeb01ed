"""Part 7 - the exhibit of the bug museum on a model that chats."""

from collections.abc import Callable, Iterable
from itertools import islice

import decoding_llama3 as dl
from decoding_llama3.inference.generator import generate
from decoding_llama3.lessons.exhibit import Exhibit, Seen
from decoding_llama3.lessons.practice.mistake import Mistake
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

QUESTION, LIMIT = "What is the capital of France?", 60


def answer_to(model, tokenizer, prompt):
    return dl.generate(model, prompt, 60, stop_ids=tokenizer.stop_ids[:1])


def _answer(model: Transformer, tokenizer: Tokenizer, prompt: list[int]) -> Iterable[int]:
    return generate(model, prompt, LIMIT, stop_ids=tokenizer.stop_ids)


def _chat(model: Transformer, tokenizer: Tokenizer, answer: Callable[..., Iterable[int]]) -> Seen:
    prompt = tokenizer.encode_chat([{"role": "user", "content": QUESTION}])
    given = answer(model, tokenizer, list(prompt))
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise Mistake(f"it returns {given!r:.60}, where the ids of the new tokens were expected")
    tokens = list(islice(given, LIMIT + 1))
    if not all(isinstance(token, int) for token in tokens):
        raise Mistake("what it returns are not ids of tokens, which are whole numbers")
    end = next((i for i, token in enumerate(tokens) if token in tokenizer.stop_ids), len(tokens))
    after = max(0, len(tokens) - end - 1)
    rows = {
        QUESTION: tokenizer.decode(tokens[: end + 1]),
        f"new tokens, {LIMIT} at most": str(len(tokens)),
        "of these after the answer": str(after),
    }
    return Seen(rows, [*tokens[:end], after])


EXHIBITS = {
    "7.4": Exhibit(
        "A model that chats is asked a question. It always takes the most probable token.",
        _chat,
        {
            "the temperature is too low, so it repeats itself": (
                "The healthy model takes the most probable token, too, which is temperature 0, and it ends."
            ),
            "begin-of-text stands twice in its prompt": (
                "Another prompt would bring another answer. This one is, up to its end, word for word that of the "
                "healthy model."
            ),
            "its `stop_ids` are incomplete": (
                "A chat model ends its answer with a token of its own, other than the end of a text. Both have "
                "to stop it: `stop_ids=tokenizer.stop_ids`. Otherwise it goes on with what follows an answer in "
                "a conversation, and writes the user's next question itself."
            ),
            "the limit of 60 tokens is too high": (
                "A lower limit would cut longer answers. The model marks the end of its answer by itself, long "
                "before the limit."
            ),
        },
        "c",
        answer_to,
        _answer,
        "`prompt` is a list of ids. Return the ids of the new tokens, at most 60 of them.",
        result="the answer and its end",
        tolerance=0.0,
    ),
}
