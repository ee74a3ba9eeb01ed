"""Generation: read the prompt once, then one token per step through the key/value cache."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.inference.arguments import check_ids, check_prompt, check_real, check_seed, check_whole
from decoding_llama3.inference.compile import NO_COMPILER, CompiledTransformer, DecodeStep, can_compile
from decoding_llama3.inference.memory import CACHED
from decoding_llama3.inference.prefix import prefix_length
from decoding_llama3.inference.sampling import NOT_FINITE, sample
from decoding_llama3.kv_cache import KVCache
from decoding_llama3.transformer import Transformer

CHUNK = 2048  # tokens of a prompt that are read at once: bounds the memory that a long one takes
BUCKET = 256  # the lengths of caches are multiples of this, so that texts of about one length share them

# CUDA graphs are recorded for the addresses of caches: a compiled model's next text takes those of the last one.
_idle_caches: WeakKeyDictionary[Transformer, list[KVCache]] = WeakKeyDictionary()


def generate(
    model: Transformer,
    prompt_ids: Iterable[int] | Tensor,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop_ids: Iterable[int] | Tensor | int = (),
    seed: int | None = None,
    compile: bool = False,
) -> Iterator[int]:
    """Yield the tokens that continue `prompt_ids`, as they come.

    Temperature 0 takes the most probable token; else one is drawn from the most probable tokens that hold more
    than `top_p` of the probability together, from all of them at 1. Ends before a token of `stop_ids`, after
    `max_new_tokens`, or when the context is full. The same `seed` gives the same tokens on the same machine. With
    `compile`, or a model loaded so, the first new token waits for the compiler and the others come faster.

    Wrong arguments raise ValueError or TypeError here, not at the first token. Logits that are not finite raise
    ValueError at the token that they were to give.
    """
    generator = Generator(model, compile=compile or isinstance(model, CompiledTransformer))
    tokens = generator.generate(prompt_ids, max_new_tokens, temperature, top_p, stop_ids, seed)
    return _with_idle_caches(generator, tokens) if generator.compile else tokens


class Generator:
    """A model in the middle of a text: owns the caches, which hold the tokens of `past`, and the compiled step.

    The caches are made once for the length that is wanted and serve one text after another; where a text outgrows
    them they double. `length` makes them that many tokens long at once. For compiled code on a CPU they grow with
    the text instead, because it reads all their slots for each token and is the same code for every length.
    `report` receives the line that says that compiling begins. A model without weights raises ValueError.
    """

    def __init__(
        self,
        model: Transformer,
        compile: bool = False,
        length: int = 0,
        report: Callable[[str], None] = print,
    ) -> None:
        if model.norm.weight.is_meta:
            raise ValueError("the model has shapes alone and no weights: load it on a device such as 'cpu'")
        self.model, self.report = model, report
        self.compile = compile and can_compile(model.norm.weight.device)
        if compile and not self.compile:
            report(NO_COMPILER)
        self._is_lean = self.compile and model.norm.weight.device.type == "cpu"
        self.past: list[int] = []
        self._use([])
        self._reserve(0 if self._is_lean else length)

    @property
    def length(self) -> int:
        """How many tokens the caches have room for."""
        return self.caches[0].keys.shape[2] if self.caches else 0

    def generate(
        self,
        prompt_ids: Iterable[int] | Tensor,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop_ids: Iterable[int] | Tensor | int = (),
        seed: int | None = None,
        keep: bool = False,
    ) -> Iterator[int]:
        """As the function `generate`, for one text after another.

        With `keep`, what `prompt_ids` and `past` have in common from the beginning on is not read again: for a
        conversation, while the model stays as it is.
        """
        config = self.model.config
        prompt = check_prompt(prompt_ids, config.vocab_size, config.max_seq_len)
        n_tokens = check_whole("max_new_tokens", max_new_tokens, low=0)
        check_real("temperature", temperature, "0 (the most probable token) or more", lambda t: t >= 0)
        check_real("top_p", top_p, "above 0 and at most 1", lambda p: 0 < p <= 1)
        stops = frozenset(check_ids("stop_ids", stop_ids, config.vocab_size))
        seed = check_seed(seed)
        draws = None if seed is None else torch.Generator(self._device).manual_seed(seed)
        choose = partial(sample, temperature=float(temperature), top_p=float(top_p), generator=draws)
        room = config.max_seq_len - len(prompt) + 1  # the last token is quoted but never read
        return self._generate(prompt, min(n_tokens, room), choose, stops, keep)

    def read(self, tokens: Int[Tensor, "1 seq"]) -> Float[Tensor, " vocab"]:
        """Logits after the last of `tokens`, which continue `past`.

        Tokens outside the vocabulary or beyond the context raise ValueError.
        """
        config = self.model.config
        return self._read(check_prompt(tokens[0], config.vocab_size, config.max_seq_len, len(self.past))).clone()

    def _generate(
        self,
        prompt: list[int],
        n_tokens: int,
        choose: Callable[[Tensor], Tensor],
        stops: frozenset[int],
        keep: bool,
    ) -> Iterator[int]:
        if n_tokens == 0:
            return
        self.past = self.past[: prefix_length(self.past, prompt[:-1])] if keep else []
        too_long = self._is_lean and self.length > _rounded_up(len(prompt))
        if not self._fits() or (too_long and not self.past):
            self._use([])
        wanted = len(prompt) if self._is_lean else len(prompt) + n_tokens - 1
        self._reserve(min(wanted, max(len(prompt), CACHED)))
        token = choose(self._read(prompt[len(self.past) :]))
        for at in range(len(prompt), len(prompt) + n_tokens):
            is_last = at + 1 == len(prompt) + n_tokens
            arriving = _to_host(token)
            ahead = self._device.type == "cuda" and not is_last  # a GPU gets its next step before it is waited for
            if ahead:
                token = choose(self._read_token(token, at))
            new = self._check_finite(int(arriving()))
            if new in stops:
                return
            self.past += [new] * ahead
            yield new
            if not (is_last or ahead):
                token = choose(self._read_token(token, at))
                self.past.append(new)

    @torch.inference_mode()
    def _read(self, ids: list[int]) -> Float[Tensor, " vocab"]:
        """Logits after the last of `ids`, read a chunk at a time."""
        if self.past and len(ids) == 1:
            logits = self._read_token(torch.tensor(ids, device=self._device), len(self.past))
            self.past += ids
            return logits
        self._reserve(len(self.past) + len(ids))
        hidden = torch.empty(0)
        for chunk in (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)):
            positions = torch.arange(len(self.past), len(self.past) + len(chunk), device=self._device)
            self.past += chunk
            views = [_View(cache, len(self.past)) for cache in self.caches]  # the first chunk needs no mask so
            hidden = self.model.hidden(torch.tensor([chunk], device=self._device), positions, views)
        return self.model.output(hidden[:, -1]).float()[0]

    @torch.inference_mode()
    def _read_token(self, token: Int[Tensor, "1"], at: int) -> Float[Tensor, " vocab"]:
        """Logits after one token at the position `at`."""
        self._reserve(at + 1)
        position = torch.full((1,), at, device=self._device)  # a tensor of a Python number would be waited for
        if self.compile:
            self._step = self._step or DecodeStep(self.model, self.caches, self.report)
            return self._step(token[None], position)[0, -1]
        if not self._views or at >= self._views[0].keys.shape[2]:
            length = min(_rounded_up(at + 1), self.length)
            self._views = [_View(cache, length) for cache in self.caches]
        return self.model(token[None], position, self._views)[0, -1]

    @torch.inference_mode()
    def _reserve(self, n: int) -> None:
        """Make the caches long enough for `n` tokens."""
        if n <= self.length:
            return
        length = _rounded_up(n) if self._is_lean else max(_rounded_up(n), 2 * self.length)
        longer = self.model.make_caches(1, min(length, max(self.model.config.max_seq_len, n)))
        for new, old in zip(longer, self.caches, strict=bool(self.caches)):
            new.keys[:, :, : len(self.past)] = old.keys[:, :, : len(self.past)]
            new.values[:, :, : len(self.past)] = old.values[:, :, : len(self.past)]
        self._use(longer)

    def _use(self, caches: list[KVCache]) -> None:
        self.caches, self._views, self._step = caches, [], None
        if not caches:
            self.past = []

    def _fits(self) -> bool:
        """Whether the caches are such as the model would make now: it may have been changed since."""
        if not self.caches:
            return True
        keys, config, like = self.caches[0].keys, self.model.config, self.model.norm.weight
        shape = (len(self.model.layers), config.n_kv_heads, config.head_dim, like.dtype, like.device)
        return shape == (len(self.caches), keys.shape[1], keys.shape[3], keys.dtype, keys.device)

    def _check_finite(self, token: int) -> int:
        if token == NOT_FINITE:
            self._use([])  # the caches may hold numbers that are not finite, too
            raise ValueError(
                "the model's logits are not finite: its weights are damaged, or its dtype is too narrow for them; "
                "load it anew, or in float32"
            )
        return token

    @property
    def _device(self) -> torch.device:
        return self.model.norm.weight.device


class _View(KVCache):
    """The first slots of a cache, in the cache's own memory."""

    def __init__(self, cache: KVCache, length: int) -> None:
        nn.Module.__init__(self)
        self.keys, self.values = cache.keys[:, :, :length], cache.values[:, :, :length]


def _with_idle_caches(generator: Generator, tokens: Iterator[int]) -> Iterator[int]:
    """`tokens`, through the caches that the model's last text has left, which are left to the next one."""
    generator._use(_idle_caches.pop(generator.model, []))
    try:
        yield from tokens
    finally:
        _idle_caches[generator.model] = generator.caches


def _to_host(token: Int[Tensor, "1"]) -> Callable[[], int | float | bool]:
    """Begin to fetch a token; calling the result waits for it, and for nothing that the GPU was given since."""
    if token.device.type != "cuda":
        return token.item
    arriving = torch.empty(1, dtype=token.dtype, pin_memory=True)
    arriving.copy_(token, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def wait() -> int | float | bool:
        event.synchronize()
        return arriving.item()

    return wait


def _rounded_up(length: int) -> int:
    return -(-length // BUCKET) * BUCKET
