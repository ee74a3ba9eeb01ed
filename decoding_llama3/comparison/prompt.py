"""The prompt that models are compared on: a text, ids, or ids at random where there is no tokenizer."""

from os import PathLike

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.arguments import check_prompt
from decoding_llama3.inference.tokenizers.find import load_tokenizer

TEXT = "The quick brown fox jumps over the lazy dog, and then it asks: what is the capital of France? It is"
N_RANDOM = 24


def text_ids(
    text: str, config: LlamaConfig, checkpoint: str | PathLike, tokenizer: str | None = None
) -> list[int]:
    """A text as ids of a checkpoint's tokenizer, or of the one that is named.

    Raises ValueError where there is none, or the text does not fit into the context.
    """
    ids = load_tokenizer(tokenizer or checkpoint, checkpoint).encode(text, bos=True)
    return check_prompt(ids, config.vocab_size, config.max_seq_len)


def listed_ids(listed: str, config: LlamaConfig) -> list[int]:
    """The ids in a text such as "1,2,3"; raises ValueError for another text, or ids beyond the vocabulary."""
    try:
        ids = [int(number) for number in listed.split(",")]
    except ValueError:
        raise ValueError(f"ids are whole numbers with commas between, as 1,15,27, found {listed[:80]!r}") from None
    return check_prompt(ids, config.vocab_size, config.max_seq_len)


def default_ids(config: LlamaConfig, checkpoint: str | PathLike) -> tuple[list[int], str]:
    """A text of some dozen tokens, or ids at random, always the same, where no tokenizer can be had; and which."""
    try:
        ids = text_ids(TEXT, config, checkpoint)
        return ids[: config.max_seq_len // 2], f"{TEXT!r}"
    except ValueError as error:
        n = max(1, min(N_RANDOM, config.max_seq_len // 2))
        ids = torch.randint(config.vocab_size, (n,), generator=torch.Generator().manual_seed(0)).tolist()
        return ids, f"ids at random, because {error}"
