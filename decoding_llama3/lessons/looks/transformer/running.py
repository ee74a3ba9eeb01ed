"""Part 7 - what is shown of the finished model at work: on other weights, in a chat, in time."""

import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.find import checkpoint_path
from decoding_llama3.inference.generator import generate
from decoding_llama3.inference.quantize import Int8Weight
from decoding_llama3.lessons.show import show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.transformer import Transformer


def same_weights(build: Callable[[LlamaConfig], nn.Module], text: str, real: Subject | None) -> None:
    """A learner's model with the very weights of a real one: do the logits agree? Prints what was found."""
    if real is None:
        return
    if any(isinstance(part, Int8Weight) for part in real.model.modules()):
        print(f"{real.name} is in int8 here, which your class does not know")
        return
    with torch.device("meta"):  # shapes alone, until the weights come
        mine = build(real.model.config)
    mine.load_state_dict(real.model.state_dict(), assign=True)
    ids = real.ids(text)
    ours, theirs = mine(ids).float(), real.model(ids)
    off = ((ours - theirs).norm() / theirs.norm()).item()
    word = real.tokenizer.decode([int(ours[0, -1].argmax())])
    print(f"your class with {real.name}'s weights, relative difference of the logits below 1e-5: {off < 1e-5}")
    print(f"{text!r} ... {word!r}")


def compare_huggingface(subject: Subject, text: str) -> None:
    """Tiny's files read by Hugging Face's library, where it is installed; prints whether the logits agree."""
    if not importlib.util.find_spec("transformers"):
        print("compared with nobody: pip install transformers, and run this again")
        return
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    theirs = LlamaForCausalLM.from_pretrained(checkpoint_path(subject.name), dtype=torch.float32)
    ids = subject.ids(text)
    torch.testing.assert_close(theirs(ids).logits, subject.model(ids), rtol=1e-4, atol=1e-4)
    print("Hugging Face's LlamaForCausalLM on the same files = the package's, within 1e-4")


def chat(question: str, real: Subject | None, tokens: int = 20) -> None:
    """A question to an instruct model: in its chat format, without stop ids, and bare. Prints all three."""
    if real is None:
        return
    model, tokenizer = real.model, real.tokenizer
    try:
        prompt = tokenizer.encode_chat([{"role": "user", "content": question}])
    except ValueError as error:
        print(f"{real.name} has no chat format: {error}")
        return
    print("what the model reads, and where it goes on:")
    print(tokenizer.decode(prompt))
    room = max(0, min(tokens, model.config.max_seq_len - len(prompt)))
    with_stop = list(generate(model, prompt, room, stop_ids=tokenizer.stop_ids))
    ended = "by itself" if len(with_stop) < room else f"cut after {room} tokens"
    print(f"\nits answer, {ended}:\n{tokenizer.decode(with_stop).strip()}")
    print(f"\nwithout stop ids:\n{tokenizer.decode(generate(model, prompt, room)).strip()}")
    bare = tokenizer.encode(question, bos=True)
    print(f"\nwithout the format:\n{question}{tokenizer.decode(generate(model, bare, room))}")


def cache_timings(
    subject: Subject, contexts: tuple[int, ...] = (64, 256, 448), repeats: int = 3
) -> list[list[float]]:
    """Milliseconds for one more token, with the cache and by reading the whole text again; returned by context."""
    found = []
    for context in contexts:
        ids = subject.ids("a")[:, :1].expand(1, context + 1)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(repeats):
            for cached, times in seconds.items():  # in turn: what else the machine does falls on both
                times.append(_one_more(subject.model, ids, cached))
        found.append([1e3 * statistics.median(times) for times in seconds.values()])
    rows = [
        [f"{context:,}", f"{with_cache:.1f} ms", f"{without:.1f} ms", f"{without / with_cache:.1f} x"]
        for context, (with_cache, without) in zip(contexts, found, strict=True)
    ]
    caption = f"{subject.name}, median of {repeats}"
    show_table(rows, ["one more token after", "with the cache", "without", "the cache saves"], caption)
    return found


def _one_more(model: Transformer, ids: torch.Tensor, cached: bool) -> float:
    positions = torch.arange(ids.shape[1], device=ids.device)
    caches = model.make_caches(1, ids.shape[1])
    if cached:
        model.hidden(ids[:, :-1], positions[:-1], caches)
    start = time.perf_counter()
    if cached:
        model(ids[:, -1:], positions[-1:], caches)
    else:
        model.output(model.hidden(ids)[:, -1])
    return time.perf_counter() - start
