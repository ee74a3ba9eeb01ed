"""Texts sampled from a model, many at a time."""

import re
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.inference.generator import generate
from decoding_llama3.inference.sampling import sample
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def sample_tales(
    model: Transformer,
    tokenizer: Tokenizer,
    n: int,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch: int = 64,
) -> list[str]:
    """`n` texts from the beginning of a text on, each of `max_tokens` or until the context is full.

    Tale i is what `generate` draws with seed + i, whatever the batch. A token that ends a text ends the tale.
    Numbers below 1 raise ValueError.
    """
    generate(model, [tokenizer.bos_id], 0, temperature, top_p)  # refuses wrong values at once
    if n < 1 or batch < 1 or max_tokens < 1:
        raise ValueError(f"tales, tokens and batch are 1 or more, found {n}, {max_tokens} and {batch}: raise them")
    prompts = torch.full((n, 1), tokenizer.bos_id)
    max_tokens = min(max_tokens, model.config.max_seq_len)
    drawn = continue_prompts(model, prompts, max_tokens, temperature, top_p, seed, batch)
    return [tokenizer.decode(_until(tale, tokenizer.stop_ids)) for tale in drawn.tolist()]


def count_listed(texts: list[str], listed: re.Pattern) -> dict[str, int]:
    """In how many of `texts`, and how often in all, an entry of a list stands; see `corpus.listed_words`."""
    counts = [len(listed.findall(text)) for text in texts]
    return {"texts": sum(count > 0 for count in counts), "occurrences": sum(counts)}


@torch.inference_mode()
def continue_prompts(
    model: Transformer,
    prompts: Int[Tensor, "prompts seq"],
    new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch: int = 64,
) -> Int[Tensor, "prompts new"]:
    """The tokens that `generate` yields for each row with seed + its index, `batch` rows at a time."""
    device, length = model.norm.weight.device, prompts.shape[1] + new_tokens - 1  # the last token is never read
    done = []
    for start in range(0, len(prompts), batch):
        tokens, positions = (
            prompts[start : start + batch].to(device),
            torch.arange(prompts.shape[1], device=device),
        )
        draws = [torch.Generator(device).manual_seed(seed + start + row) for row in range(len(tokens))]
        caches, new = model.make_caches(len(tokens), length), []
        for _ in range(new_tokens):
            logits = model.output(model.hidden(tokens, positions, caches)[:, -1]).float()
            rows = zip(logits, draws, strict=True)
            tokens = torch.stack([sample(row, temperature, top_p, draw) for row, draw in rows])
            positions = positions[-1:] + 1
            new.append(tokens)
        done.append(torch.cat(new, dim=1).cpu())
    return torch.cat(done)


def _until(tokens: list[int], stop_ids: tuple[int, ...]) -> Iterator[int]:
    for token in tokens:
        if token in stop_ids:
            return
        yield token
