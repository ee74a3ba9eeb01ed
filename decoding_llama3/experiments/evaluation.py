"""How good the tiny model is, measured fairly: against byte n-grams and compressors that read the same text.

And whether it knows its text by heart: what its tales and its continuations of the text repeat word for word.
"""

import gzip
import hashlib
import lzma
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from decoding_llama3.experiments.corpus import Corpus, encode_all
from decoding_llama3.experiments.ngram import ngram_bits_per_byte
from decoding_llama3.experiments.training import bits_per_byte
from decoding_llama3.inference.generator import generate, sample
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, apostrophes only between them
_LEAST_DICTIONARY = 64 * 2**20  # bytes; what xz -9 has
_XZ_PRESET = 9 | lzma.PRESET_EXTREME


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What `evaluate` does. Greedy continuations of 50 tokens of text follow Carlini et al., arXiv:2202.07646."""

    seq_len: int = 512  # tokens that the model sees when its own bits are counted; at most its context
    tales: int = 1000
    tale_tokens: int = 512  # at most; a tale also ends where the context does
    temperature: float = 0.8
    top_p: float = 0.9
    prompts: int = 1000
    prompt_tokens: int = 50
    new_tokens: int = 100
    batch: int = 64  # rows at once
    seed: int = 1


def evaluate(
    model: Transformer,
    tokenizer: Tokenizer,
    corpus: Corpus,
    settings: EvaluationSettings,
    listed: re.Pattern | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict:
    """All measurements of this file as one JSON-able dict; `tell` is told what is being measured.

    `listed` is what `corpus.listed_words` makes of a list of words; without it the tales are not searched for any.
    """
    s = settings
    tell("bits a byte of the model")
    nats, bits = bits_per_byte(model, tokenizer, corpus.held_out, min(s.seq_len, model.config.max_seq_len))
    tell(f"what it continues word for word, from {s.prompts:,} prompts each of training and held-out text")
    known = {
        name: memorised(model, tokenizer, texts, s.prompts, s.prompt_tokens, s.new_tokens, s.seed, s.batch)
        for name, texts in (("training", corpus.files), ("held_out", {"the held-out text": corpus.held_out}))
    }
    tell(f"{s.tales:,} tales")
    tales = sample_tales(model, tokenizer, s.tales, s.tale_tokens, s.temperature, s.top_p, s.seed, s.batch)
    tell("bits a byte of n-grams, gzip and xz")
    training, held_out = "".join(corpus.files.values()).encode(), corpus.held_out.encode()
    orders = dict(enumerate(ngram_bits_per_byte(training, held_out), start=1))
    measured = {"model": bits, "ngram": orders} | compressed_bits_per_byte(training, held_out)
    tell("word sequences that held-out text and tales share with the training text")
    return {
        "settings": asdict(s) | {"xz_dictionary_bytes": _dictionary(training, held_out)},
        "training_text": {"files": len(corpus.files), "bytes": len(training), "sha256": corpus.sha256},
        "held_out": {"bytes": len(held_out), "sha256": hashlib.sha256(held_out).hexdigest()},
        "model": {"parameters": model.config.n_params, "nats_per_token": round(nats, 4)},
        "bits_per_byte": _rounded(measured),
        "ratios": _ratios(measured),
        "overlap": overlap([corpus.held_out], corpus.files),
        "tales": {"listed": listed and count_listed(tales, listed), "overlap": overlap(tales, corpus.files)},
        "memorised": known,
    }


def compressed_bits_per_byte(training: bytes, text: bytes) -> dict[str, dict[str, float]]:
    """Bits a byte of `text` by gzip -9 and xz -9e: alone, and what it adds to the size after `training`.

    The dictionary of xz holds both texts and has at least 64 MiB. gzip looks back 32 KiB whatever stands before.
    """
    if not text:
        raise ValueError("the text to compress is empty: give at least one byte")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": _XZ_PRESET, "dict_size": _dictionary(training, text)}]
    compressors = {
        "gzip": lambda data: len(gzip.compress(data, 9, mtime=0)),
        "xz": lambda data: len(lzma.compress(data, filters=filters)),
    }
    bits = 8 / len(text)
    return {
        name: {"alone": size(text) * bits, "after_training": (size(training + text) - size(training)) * bits}
        for name, size in compressors.items()
    }


def words_of(text: str) -> list[str]:
    """Lower-case words: runs of letters and digits, with an apostrophe only between them; all else separates."""
    return _WORD.findall(text.lower())


def overlap(texts: list[str], training: dict[str, str]) -> dict:
    """Share of the 8-word sequences in `texts` that stand in a `training` file, and the longest that does.

    Every place counts, not every different sequence; none runs from one text into the next. Words: `words_of`.
    """
    numbers, starts, vocabulary = _numbered([*texts, *training.values()])
    split = starts[len(texts)]
    eights = numbers
    for length in (1, 2, 4):
        eights = _joined(eights, eights[length:])
    n_eights = sum(max(0, end - start - 8) for start, end in pairwise(starts[: len(texts) + 1]))
    n_shared = len(_shared(eights, split))
    length, place = _longest(numbers, split)
    file = np.searchsorted(starts, place, side="right") - 1 - len(texts)
    return {
        "sequences": int(n_eights),
        "in_training": n_shared,
        "share": round(n_shared / n_eights, 6) if n_eights else 0.0,
        "longest": {
            "words": length,
            "text": " ".join(vocabulary[number] for number in numbers[place : place + length]),
            "file": list(training)[file] if length else None,
        },
    }


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

    `prompts` passages, or all there are if fewer, begin at paragraphs drawn at random and have `new_tokens` behind
    them in the same file. Tokens agree as numbers, characters as text, which may go on a little longer.
    """
    _check_prompts(prompts, prompt_tokens, new_tokens, batch, model.config.max_seq_len)
    files, passages = _passages(tokenizer, texts, prompts, prompt_tokens + new_tokens, seed)
    begin = torch.full((len(passages), 1), tokenizer.bos_id)
    rows = torch.cat((begin, passages[:, :prompt_tokens]), dim=1)
    continued = continue_prompts(model, rows, new_tokens, batch=batch).tolist()
    own = passages[:, prompt_tokens:].tolist()
    tokens = [_agreement(*pair) for pair in zip(continued, own, strict=True)]
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


def _rounded(values: dict) -> dict:
    return {k: _rounded(v) if isinstance(v, dict) else round(v, 4) for k, v in values.items()}


def _ratios(measured: dict) -> dict[str, float | int]:
    model, orders = measured["model"], measured["ngram"]
    best = min(range(3, 10), key=orders.get)
    return {
        "model_to_5_gram": round(model / orders[5], 4),
        "model_to_best_ngram": round(model / orders[best], 4),
        "best_ngram_order": best,
        "model_to_xz_after_training": round(model / measured["xz"]["after_training"], 4),
    }


def _dictionary(training: bytes, text: bytes) -> int:
    return max(_LEAST_DICTIONARY, len(training) + len(text))


def _numbered(texts: list[str]) -> tuple[Int[np.ndarray, " words"], list[int], list[str]]:
    """A number for each word of all texts, where each text starts, and the word of each number.

    Behind each text stands a number that comes nowhere else, so that no sequence across it occurs twice.
    """
    numbers, flat, starts = {}, [], [0]
    for i, text in enumerate(texts):
        flat += [numbers.setdefault(word, len(numbers)) for word in words_of(text)]
        flat.append(numbers.setdefault(f"<end of {i}>", len(numbers)))  # no word has such signs
        starts.append(len(flat))
    return np.array(flat), starts, list(numbers)


def _joined(first: Int[np.ndarray, " places"], then: Int[np.ndarray, " fewer"]) -> Int[np.ndarray, " fewer"]:
    """Numbers of sequences from those of their two parts: equal where both are (Karp, Miller, Rosenberg 1972)."""
    pairs = first[: len(then)] * (then.max(initial=0) + 1) + then
    return np.unique(pairs, return_inverse=True)[1]


def _shared(sequences: Int[np.ndarray, " places"], split: int) -> Int[np.ndarray, " shared"]:
    """The places before `split` whose sequence also stands at or behind it."""
    return np.isin(sequences[:split], sequences[split:]).nonzero()[0]


def _longest(numbers: Int[np.ndarray, " words"], split: int) -> tuple[int, int]:
    """Length of the longest sequence on both sides of `split`, and where it first stands behind it."""
    doubled = [numbers]  # the sequences of 1, 2, 4, ... words; of the last, none is on both sides
    while len(_shared(doubled[-1], split)):
        doubled.append(_joined(doubled[-1], doubled[-1][2 ** (len(doubled) - 1) :]))
    length, best = 0, np.zeros_like(numbers)
    for power in reversed(range(len(doubled) - 1)):
        longer = _joined(best, doubled[power][length:])
        if len(_shared(longer, split)):
            length, best = length + 2**power, longer
    if not length:
        return 0, split
    return length, split + int((best[split:] == best[_shared(best, split)[0]]).argmax())


def _check_prompts(prompts: int, prompt_tokens: int, new_tokens: int, batch: int, context: int) -> None:
    if min(prompts, prompt_tokens, new_tokens, batch) < 1:
        found = f"{prompts}, {prompt_tokens}, {new_tokens} and {batch}"
        raise ValueError(f"prompts, their tokens, new tokens and batch are 1 or more, found {found}: raise them")
    if prompt_tokens + new_tokens > context:
        raise ValueError(
            f"{prompt_tokens} prompt tokens and {new_tokens} new ones do not fit in the model's context of "
            f"{context} behind the begin-of-text token: ask for fewer"
        )


def _passages(
    tokenizer: Tokenizer, texts: dict[str, str], n: int, length: int, seed: int
) -> tuple[list[str], Int[Tensor, "passages length"]]:
    """File and tokens of `n` passages that begin a paragraph, drawn without replacement."""
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
    return ours[: _agreement(ours, theirs)].decode("utf-8", errors="ignore")


def _agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """How many items are the same from the start on."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)


def _distribution(values: list[int]) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "percentile_99": round(float(np.percentile(values, 99)), 1),
        "longest": max(values),
    }


def _until(tokens: list[int], stop_ids: tuple[int, ...]) -> Iterator[int]:
    for token in tokens:
        if token in stop_ids:
            return
        yield token
