"""Part 7 - the exhibit of the bug museum on a model that chats."""

from collections.abc import Iterator

from decoding_llama3.inference.generator import generate
from decoding_llama3.lessons.exhibit import Exhibit
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

QUESTION, LIMIT = "What is the capital of France?", 60


def _never_stops(model: Transformer, tokenizer: Tokenizer) -> Iterator[str]:
    prompt = tokenizer.encode_chat([{"role": "user", "content": QUESTION}])
    tokens = list(stop_at_end_of_text(model, tokenizer, prompt))
    ends = [i for i, token in enumerate(tokens) if token in tokenizer.stop_ids]
    answer = tokenizer.decode(tokens[: ends[0] + 1] if ends else tokens)
    yield f"{QUESTION} {answer}"
    if ends and len(tokens) == LIMIT:
        more = len(tokens) - ends[0] - 1
        yield f"and it goes on, to the limit of {LIMIT} tokens: {more} more that nobody asked for"
    else:
        yield f"{len(tokens)} tokens, and no end of an answer among them: this exhibit needs a model that chats"


def stop_at_end_of_text(model, tokenizer, prompt):
    return generate(model, prompt, LIMIT, stop_ids=tokenizer.stop_ids[:1])


EXHIBITS = {
    "never_stops": Exhibit(
        _never_stops,
        (
            "the temperature is too low, so it repeats itself",
            "only the end of a text stops it, not the end of an answer",
            "begin-of-text stands twice in its prompt",
        ),
        "b",
        "A chat model ends its answer with a token of its own, which it learned after the end of a text. Both "
        "have to stop it: `stop_ids=tokenizer.stop_ids`. Otherwise it goes on with what follows an answer in a "
        "conversation, and writes the user's next question itself.",
        stop_at_end_of_text,
    ),
}
