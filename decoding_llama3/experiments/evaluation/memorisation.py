"""How far a model continues passages of its training text word for word."""

import random

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.experiments.corpus import encode_all
from decoding_llama3.experiments.evaluation.tales import continue_prompts
from decoding_llama3.inference.prefix import prefix_length
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


def memorised(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: dict[str, str],
    prompts: int,
    prompt_tokens: int,
    new_tokens: int,
    seed: int,
    batch: int = 64,
) -> dict:
    """How far the model's most probable continuation of passages from `texts` is the text's own, from its start.

    `prompts` passages, or all there are if fewer, begin at paragraphs drawn at random and have `new_tokens` after
    them in the same file. Tokens agree as numbers, characters as text, which may go on a little longer.
    """
    check_prompts(prompts, prompt_tokens, new_tokens, batch, model.config.max_seq_len)
    files, passages = draw_passages(tokenizer, texts, prompts, prompt_tokens + new_tokens, seed)
    begin = torch.full((len(passages), 1), tokenizer.bos_id)
    rows = torch.cat((begin, passages[:, :prompt_tokens]), dim=1)
    continued = continue_prompts(model, rows, new_tokens, batch=batch).tolist()
    own = passages[:, prompt_tokens:].tolist()
    tokens = [prefix_length(*pair) for pair in zip(continued, own, strict=True)]
    agreed = [_common_text(tokenizer, *pair) for pair in zip(continued, own, strict=True)]
    longest = max(range(len(agreed)), key=lambda i: len(agreed[i]))
    prompt = tokenizer.decode(passages[longest, :prompt_tokens].tolist())
    return {
        "prompts": len(passages),
        "tokens": _distribution(tokens),
        "characters": _distribution([len(text) for text in agreed]),
        "share_of_50_characters": round(sum(len(text) >= 50 for text in agreed) / len(agreed), 4),
        "longest": {"file": files[longest], "prompt": prompt, "continuation": agreed[longest]},
    }


def check_prompts(prompts: int, prompt_tokens: int, new_tokens: int, batch: int, context: int) -> None:
    """Raise ValueError for numbers below 1, and for prompts that leave no room in the context."""
    if min(prompts, prompt_tokens, new_tokens, batch) < 1:
        found = f"{prompts}, {prompt_tokens}, {new_tokens} and {batch}"
        raise ValueError(f"prompts, their tokens, new tokens and batch are 1 or more, found {found}: raise them")
    if prompt_tokens + new_tokens > context:
        raise ValueError(
            f"{prompt_tokens} prompt tokens and {new_tokens} new ones do not fit in the model's context of "
            f"{context} after the begin-of-text token: ask for fewer"
        )


def draw_passages(
    tokenizer: Tokenizer, texts: dict[str, str], n: int, length: int, seed: int
) -> tuple[list[str], Int[Tensor, "passages length"]]:
    """File and tokens of `n` passages that begin a paragraph, drawn without replacement.

    Texts that have no paragraph with `length` tokens after its start raise ValueError.
    """
    tokens = {file: encode_all(tokenizer, [text]) for file, text in texts.items()}
    ends = torch.tensor([tokenizer.token_bytes(token).endswith(b"\n") for token in range(tokenizer.n_vocab)])
    starts = [
        (file, start)
        for file, ids in tokens.items()
        for start in (0, *(ends[ids].nonzero().flatten() + 1).tolist())
        if start + length <= len(ids)
    ]
    if not starts:
        raise ValueError(
            f"no paragraph in {len(texts)} files has {length} tokens from its start to the end of its file: "
            "ask for fewer tokens or give longer texts"
        )
    drawn = random.Random(seed).sample(starts, min(n, len(starts)))
    return [file for file, _ in drawn], torch.stack([tokens[file][i : i + length] for file, i in drawn])


def _common_text(tokenizer: Tokenizer, one: list[int], other: list[int]) -> str:
    # By bytes, and without half a character at the end.
    ours, theirs = (b"".join(map(tokenizer.token_bytes, ids)) for ids in (one, other))
    return ours[: prefix_length(ours, theirs)].decode("utf-8", errors="ignore")


def _distribution(values: list[int]) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "percentile_99": round(float(np.percentile(values, 99)), 1),
        "longest": max(values),
    }
