"""What a model could do at each snapshot of its training."""

from pathlib import Path

import torch

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments.corpus import Corpus
from decoding_llama3.experiments.snapshots import load_snapshot, snapshots
from decoding_llama3.experiments.training.loss import bits_per_byte
from decoding_llama3.experiments.training.settings import TrainingSettings
from decoding_llama3.inspect.heads import head_scores, repeat_losses, repeated_random_tokens
from decoding_llama3.tokenizer import N_SPECIAL, Tokenizer


def check_vocabulary(config: LlamaConfig, settings: TrainingSettings) -> None:
    """Raise ValueError where there are fewer tokens of two bytes and more than `learning_curve` repeats."""
    tokens, needed = config.vocab_size - 256 - N_SPECIAL, longest_copy(settings)
    if tokens < needed:
        raise ValueError(
            f"a vocabulary of {config.vocab_size} has {max(tokens, 0)} tokens beside 256 bytes and {N_SPECIAL} "
            f"special ones, of which copying is measured with {needed}: give "
            f"{config.vocab_size - tokens + needed} or more"
        )


def longest_copy(settings: TrainingSettings) -> int:
    """Tokens of the longest span that `learning_curve` repeats."""
    return min(64, settings.seq_len // 4)


def learning_curve(
    folder: Path, corpus: Corpus, settings: TrainingSettings, config: LlamaConfig, tokenizer: Tokenizer
) -> list[dict]:
    """What each snapshot in `folder` could do: loss on the held-out text, best heads, loss on repeated tokens.

    `held_out` is in bits per byte, on the first 64 kB; `previous` and `induction` are the largest `head_scores` on
    repeated random tokens; `first_copy` and `later_copies` are the losses there, in nats per token.
    """
    longest = longest_copy(settings)
    words, periods = repeated_random_tokens(
        range(256, tokenizer.n_vocab - N_SPECIAL),
        tokenizer.bos_id,
        batch=16,
        seq=2 * longest + 1,
        generator=torch.Generator().manual_seed(0),
        periods=range(longest // 2, longest + 1),
    )
    rows = []
    for step, path in snapshots(folder).items():
        model = load_snapshot(path, config)
        seq_len = settings.shape_at(max(step - 1, 0))[1]
        _, bits = bits_per_byte(model, tokenizer, corpus.held_out[:64_000], seq_len)
        scores = head_scores(model, words, periods)
        first, later = repeat_losses(model, words, periods)
        best = {kind: scores[kind].max().item() for kind in ("previous", "induction")}
        rows.append({"step": step, "held_out": bits} | best | {"first_copy": first, "later_copies": later})
    return rows
