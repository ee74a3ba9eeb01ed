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


def same_weights(build: Callable[[LlamaConfig], nn.Module], text: str, real: Subject | None, n: int = 8) -> None:
    """A learner's model with the very weights of a real one: do the logits agree? Prints, with `n` words more."""
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
    begin = ids.shape[1]
    for _ in range(n):
        ids = torch.cat([ids, mine(ids)[:, -1:].argmax(dim=-1)], dim=1)
    words = real.tokenizer.decode(ids[0, begin:].tolist())
    print(f"your class with {real.name}'s weights, relative difference of the logits below 1e-5: {off < 1e-5}")
    print(f"{text} ...{words!r}")


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
    """Milliseconds for one more token, with the cache and by reading the whole text again; returned by context.

    Beside them, with the cache, a model of as many blocks with next to no weights: what a step costs without them.
    """
    found, deep = [], subject.model.config.n_layers
    device = subject.model.norm.weight.device
    config = LlamaConfig(dim=16, n_layers=deep, n_heads=2, n_kv_heads=1, hidden_dim=32, vocab_size=64)
    empty = Transformer(config).to(device).requires_grad_(False)
    for context in contexts:
        ids = subject.ids("a")[:, :1].expand(1, context + 1)
        runs = ((subject.model, ids, True), (subject.model, ids, False), (empty, torch.zeros_like(ids), True))
        seconds: list[list[float]] = [[], [], []]
        for _ in range(repeats):
            for run, times in zip(runs, seconds, strict=True):  # in turn: what else the machine does falls on all
                times.append(_one_more(*run))
        found.append([1e3 * statistics.median(times) for times in seconds])
    rows = [
        [
            f"{context:,}",
            *(f"{ms:.1f} ms" for ms in times[:2]),
            f"{times[1] / times[0]:.1f} x",
            f"{times[2]:.1f} ms",
        ]
        for context, times in zip(contexts, found, strict=True)
    ]
    caption = f"{subject.name}, median of {repeats}"
    tiniest = f"{deep} nearly empty blocks, cached"
    show_table(rows, ["one more token after", "with the cache", "without", "the cache saves", tiniest], caption)
    print(f"the nearly empty blocks have {empty.config.n_params:,} weights together; ", end="")
    megabytes = sum(weight.numel() * weight.element_size() for weight in subject.model.parameters()) / 1e6
    print(f"{subject.name}'s weights are {megabytes:.0f} MB: at 60 GB/s, {megabytes / 60:.1f} ms to read")
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
