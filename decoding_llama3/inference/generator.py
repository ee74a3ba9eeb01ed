"""Generation: read the prompt once, then one token a step through the key/value cache."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from decoding_llama3.inference.compile import compile_decode_step
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.transformer import Transformer

CHUNK = 2048  # tokens of a prompt that are read at once: bounds the memory that a long one takes
BUCKET = 256  # slots that a cache grows by


def generate(
    model: Transformer,
    prompt_ids: Sequence[int],
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] = (),
    seed: int | None = None,
    compile: bool = False,
) -> Iterator[int]:
    """Yield the tokens that continue `prompt_ids`, as they come.

    Temperature 0 takes the most probable token; else one is drawn from the smallest set of tokens that holds
    `top_p` of the probability. Ends before a token of `stop_ids`, after `max_new_tokens`, or when the context
    is full. The same `seed` gives the same tokens on the same machine. With `compile`, or a model loaded so, the
    first new token waits for the compiler and the others come faster. Wrong arguments raise ValueError at once,
    not at the first token.
    """
    prompt = _check_prompt(model, prompt_ids)
    if not temperature >= 0:  # NaN is not
        raise ValueError(f"temperature must be 0 (the most probable token) or more, found {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, found {top_p}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, found {max_new_tokens}")
    if compile:
        compile_decode_step(model)
    room = model.config.max_seq_len - len(prompt) + 1  # the last token is shown but never read
    return _generate(model, prompt, min(max_new_tokens, room), temperature, top_p, frozenset(stop_ids), seed)


def sample(
    logits: Float[Tensor, " vocab"], temperature: float, top_p: float, generator: torch.Generator | None
) -> Int[Tensor, "1"]:
    """One token of the next-token distribution; see `generate` for `temperature` and `top_p`."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    probs, tokens = (logits / temperature).softmax(dim=-1).sort(descending=True)
    before = probs.cumsum(dim=-1) - probs  # probability of the tokens ahead of each: 0 for the first, always kept
    probs = probs.masked_fill(before > top_p, 0.0)
    return tokens[torch.multinomial(probs, 1, generator=generator)]


class Decoder:
    """A model in the middle of a text: its caches hold the tokens it has read, and grow as it reads on."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.n_read = 0
        with torch.inference_mode():
            self.caches = model.make_caches(batch=1, length=0)

    @torch.inference_mode()
    def read(self, tokens: Int[Tensor, "1 seq"]) -> Float[Tensor, " vocab"]:
        """Logits after the last of `tokens`, which continue what was read before."""
        if self.n_read and tokens.shape[1] == 1:
            step = getattr(self.model, "decode_step", self.model)
            return step(tokens, *self._advance(1))[0, -1]
        for chunk in tokens.split(CHUNK, dim=1):
            hidden = self.model.hidden(chunk, *self._advance(chunk.shape[1]))
        return self.model.output(hidden[:, -1]).float()[0]

    def _advance(self, n: int) -> tuple[Int[Tensor, " seq"], list[KVCache]]:
        """Positions of the next `n` tokens, and caches with room for them."""
        positions = torch.arange(self.n_read, self.n_read + n, device=self.model.norm.weight.device)
        # Of the first chunk's very length, which spares it a mask; then of whole buckets.
        length = -(-(self.n_read + n) // BUCKET) * BUCKET if self.n_read else n
        self.n_read += n
        for cache in self.caches:
            if (more := length - cache.keys.shape[2]) > 0:
                cache.keys, cache.values = (F.pad(x, (0, 0, 0, more)) for x in (cache.keys, cache.values))
        return positions, self.caches


def _generate(
    model: Transformer,
    prompt: list[int],
    n_tokens: int,
    temperature: float,
    top_p: float,
    stop_ids: frozenset[int],
    seed: int | None,
) -> Iterator[int]:
    device = model.norm.weight.device
    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    decoder, tokens = Decoder(model), torch.tensor([prompt], device=device)
    for _ in range(n_tokens):
        token = sample(decoder.read(tokens), temperature, top_p, generator)
        tokens = token[None]
        if token.item() in stop_ids:
            return
        yield token.item()


def _check_prompt(model: Transformer, prompt_ids: Sequence[int]) -> list[int]:
    prompt = prompt_ids.tolist() if isinstance(prompt_ids, Tensor) else list(prompt_ids)
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token, for example the begin-of-text token")
    vocab_size, context = model.config.vocab_size, model.config.max_seq_len
    for token in prompt:
        if not isinstance(token, int):
            raise TypeError(f"a prompt is a list of token ids, found {token!r} in it: encode text first")
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"token id {token} is outside the model's 0 to {vocab_size - 1}: was the text encoded by the "
                "tokenizer of another model?"
            )
    if len(prompt) > context:
        raise ValueError(f"the prompt has {len(prompt)} tokens, the model's context {context}: shorten the prompt")
    return prompt
