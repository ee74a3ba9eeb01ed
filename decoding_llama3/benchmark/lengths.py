"""The lengths of prompts and contexts that fit a model."""

from collections.abc import Iterable, Sequence

from decoding_llama3.config import LlamaConfig

WARM_UP = 3  # steps before those that are timed: CUDA graphs are recorded in the second


def max_context(config: LlamaConfig, new_tokens: int) -> int:
    """The longest context after which `new_tokens` can be timed."""
    return config.max_seq_len - WARM_UP - new_tokens


def clip_lengths(lengths: Iterable[int], longest: int) -> tuple[int, ...]:
    """Those that are no longer than `longest`, in increasing order, each once."""
    return tuple(sorted({n for n in lengths if n <= longest}))


def check_new_tokens(new_tokens: int, config: LlamaConfig) -> None:
    """Raise ValueError unless so many tokens can be timed after the shortest of contexts."""
    longest = config.max_seq_len - WARM_UP - 1
    if not 1 <= new_tokens <= longest:
        raise ValueError(f"new tokens must be from 1 to {longest} with this model, found {new_tokens}")


def check_lengths(prompts: Sequence[int], contexts: Sequence[int], new_tokens: int, config: LlamaConfig) -> None:
    """Raise ValueError unless each length fits the model's context, and there is a context at all."""
    check_new_tokens(new_tokens, config)
    longest = max_context(config, new_tokens)
    if not contexts:
        raise ValueError(f"no context is given that fits this model: take one of 1 to {longest} tokens")
    for what, lengths, most in (("prompts", prompts, config.max_seq_len), ("contexts", contexts, longest)):
        if wrong := [n for n in lengths if not 1 <= n <= most]:
            raise ValueError(f"{what} of this model have 1 to {most} tokens here, found {wrong[0]}")
