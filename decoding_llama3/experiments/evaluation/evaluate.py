"""How good the tiny model is, measured beside n-grams and compressors, and what it knows by heart."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass

from decoding_llama3.experiments.corpus import Corpus
from decoding_llama3.experiments.evaluation.compression import compressed_bits_per_byte, dictionary_bytes
from decoding_llama3.experiments.evaluation.memorisation import check_prompts, draw_passages, memorised
from decoding_llama3.experiments.evaluation.ngram import MAX_ORDER, ngram_bits_per_byte
from decoding_llama3.experiments.evaluation.overlap import overlap
from decoding_llama3.experiments.evaluation.tales import count_listed, sample_tales
from decoding_llama3.experiments.seeds import check_run_seed
from decoding_llama3.experiments.training.loss import bits_per_byte
from decoding_llama3.inference.arguments import check_whole
from decoding_llama3.inference.generator import generate
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What `evaluate` does; a number out of range raises ValueError.

    Greedy continuations after 50 tokens of text follow Carlini et al., arXiv:2202.07646.
    """

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

    def __post_init__(self) -> None:
        for name in ("tales", "tale_tokens", "prompts", "prompt_tokens", "new_tokens", "batch"):
            check_whole(name, getattr(self, name), 1)
        check_whole("seq_len", self.seq_len, 2)
        check_run_seed(self.seed)


def evaluate(
    model: Transformer,
    tokenizer: Tokenizer,
    corpus: Corpus,
    settings: EvaluationSettings,
    listed: re.Pattern | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict:
    """All measurements of this folder as one JSON-able dict; `report` is called with what is being measured.

    `listed` is what `listed_words` makes of a list of words; without it the tales are not searched for any. Raises
    ValueError, before anything is measured, for texts, prompts or a temperature that cannot be measured with.
    """
    s = settings
    texts = {"training": corpus.files, "held_out": {"the held-out text": corpus.held_out}}
    _check(model, tokenizer, texts, s)
    report("bits per byte of the model")
    nats, bits = bits_per_byte(model, tokenizer, corpus.held_out, min(s.seq_len, model.config.max_seq_len))
    report(f"what it continues word for word, from {s.prompts:,} prompts each of training and held-out text")
    known = {
        name: memorised(model, tokenizer, files, s.prompts, s.prompt_tokens, s.new_tokens, s.seed, s.batch)
        for name, files in texts.items()
    }
    report(f"{s.tales:,} tales")
    tales = sample_tales(model, tokenizer, s.tales, s.tale_tokens, s.temperature, s.top_p, s.seed, s.batch)
    report("bits per byte of n-grams, gzip and xz")
    training, held_out = "".join(corpus.files.values()).encode(), corpus.held_out.encode()
    measured = {"model": bits} | _bits_without_a_model(training, held_out)
    report("word sequences that held-out text and tales share with the training text")
    return {
        "settings": asdict(s) | {"xz_dictionary_bytes": dictionary_bytes(training, held_out)},
        "training_text": {"files": len(corpus.files), "bytes": len(training), "sha256": corpus.sha256},
        "held_out": {"bytes": len(held_out), "sha256": hashlib.sha256(held_out).hexdigest()},
        "model": {"parameters": model.config.n_params, "nats_per_token": round(nats, 4)},
        "bits_per_byte": _rounded(measured),
        "ratios": _ratios(measured),
        "overlap": overlap([corpus.held_out], corpus.files),
        "tales": {"listed": listed and count_listed(tales, listed), "overlap": overlap(tales, corpus.files)},
        "memorised": known,
    }


def _bits_without_a_model(training: bytes, text: bytes) -> dict:
    orders = dict(enumerate(ngram_bits_per_byte(training, text), start=1))
    return {"ngram": orders} | compressed_bits_per_byte(training, text)


def _check(
    model: Transformer, tokenizer: Tokenizer, texts: dict[str, dict[str, str]], settings: EvaluationSettings
) -> None:
    s, length = settings, settings.prompt_tokens + settings.new_tokens
    generate(model, [tokenizer.bos_id], 0, s.temperature, s.top_p)  # refuses wrong values at once
    check_prompts(s.prompts, s.prompt_tokens, s.new_tokens, s.batch, model.config.max_seq_len)
    for files in texts.values():
        draw_passages(tokenizer, files, 1, length, s.seed)


def _rounded(values: dict) -> dict:
    return {k: _rounded(v) if isinstance(v, dict) else round(v, 4) for k, v in values.items()}


def _ratios(measured: dict) -> dict[str, float | int]:
    model, orders = measured["model"], measured["ngram"]
    best = min(range(3, MAX_ORDER + 1), key=orders.get)
    return {
        "model_to_5_gram": round(model / orders[5], 4),
        "model_to_best_ngram": round(model / orders[best], 4),
        "best_ngram_order": best,
        "model_to_xz_after_training": round(model / measured["xz"]["after_training"], 4),
    }
