"""Training of a small model: any folder of .txt in, a checkpoint in Hugging Face's format out.

A run is a function of its settings, its text and the number of threads. It saves itself, and a run that was killed
and started again ends with the weights of one that never was.
"""

import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments.corpus import Corpus, Windows, encode_all
from decoding_llama3.experiments.files import make_folder, only_one, write_csv, write_json
from decoding_llama3.experiments.learning import learn
from decoding_llama3.experiments.snapshots import save_snapshot, snapshots
from decoding_llama3.experiments.training.batches import make_batch
from decoding_llama3.experiments.training.curve import check_vocabulary, learning_curve
from decoding_llama3.experiments.training.loss import bits_per_byte, make_batch_loss
from decoding_llama3.experiments.training.optimizers import initialize, make_optimizers
from decoding_llama3.experiments.training.settings import TrainingSettings
from decoding_llama3.experiments.training.state import ANOTHER, TrainingRun, load_state, save_state
from decoding_llama3.experiments.training.vocabulary import train_tokenizer
from decoding_llama3.inference.arguments import check_whole
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.devices import check_device
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer

MEASURED = 64_000  # characters of the held-out text, on which a run is measured as it goes


def train(
    corpus: Corpus,
    config: LlamaConfig,
    settings: TrainingSettings,
    out: Path,
    device: str = "cpu",
    save_every: int = 100,
) -> Iterator[dict]:
    """Train, yielding a record per step; `out` receives the state as it goes and the finished model at the end.

    Every `save_every` steps the run is saved, and the loss on the first 64 kB of the held-out file is measured.
    `out/snapshots` keeps the weights of these steps, of step 0, and after 1 % and 10 % of the steps.

    Raises ValueError, before the first step, for settings that do not fit the shape or the text, for a folder of
    another run and for one in which a run is under way; and at a step whose loss is not finite.
    """
    check_device(device)
    check_whole("save_every", save_every, 1)
    if settings.seq_len > config.max_seq_len:
        raise ValueError(
            f"sequences of {settings.seq_len} tokens do not fit the context of {config.max_seq_len}: shorten them"
        )
    if not corpus.held_out.strip():
        raise ValueError("the held-out text is empty: name a file with text in it")
    check_vocabulary(config, settings)
    make_folder(out)
    return _locked(TrainingRun(out, corpus, config, settings), device, save_every)


def _locked(run: TrainingRun, device: str, save_every: int) -> Iterator[dict]:
    with only_one(run.out, "training"):
        yield from _train(run, device, save_every)


def _train(run: TrainingRun, device: str, save_every: int) -> Iterator[dict]:
    out, corpus, settings = run.out, run.corpus, run.settings
    tokenizer = _make_tokenizer(run)
    tokens = encode_all(tokenizer, list(corpus.files.values()))
    lengths = {settings.shape_at(0)[1], settings.seq_len}
    windows = {length: Windows(tokenizer, tokens, length, settings.seed) for length in lengths}
    model = Transformer(run.config)
    initialize(model, settings.seed)
    model.to(device)
    optimizers, batch_loss = make_optimizers(model, settings), make_batch_loss(settings.compile, device)
    records = load_state(run, model, optimizers)
    _remove_later_snapshots(out / "snapshots", len(records))
    if not records:
        save_snapshot(model, out / "snapshots", 0)
    for step in range(len(records), settings.steps):
        started = time.perf_counter()
        inputs, targets = (part.to(device) for part in make_batch(windows, tokenizer, settings, step))

        def loss(inputs: torch.Tensor = inputs, targets: torch.Tensor = targets) -> torch.Tensor:
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=settings.autocast):
                return batch_loss(model, inputs, targets)

        value = learn(model, optimizers, loss, settings.learning_rate_at(step))
        _check_finite("loss", value, step, run)
        seconds = time.perf_counter() - started
        n_tokens = (step + 1) * settings.batch * settings.seq_len
        records.append({"step": step + 1, "tokens": n_tokens, "loss": value, "held_out": None, "seconds": seconds})
        if step + 1 in (settings.steps // 100, settings.steps // 10):
            save_snapshot(model, out / "snapshots", step + 1)
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            seq_len = settings.shape_at(step)[1]
            held_out = bits_per_byte(model, tokenizer, corpus.held_out[:MEASURED], seq_len)[0]
            _check_finite("held-out loss", held_out, step, run)  # before weights that are NaN are saved
            records[-1]["held_out"] = held_out
            save_snapshot(model, out / "snapshots", step + 1)
            save_state(run, model, optimizers, records)
        yield records[-1]
    _finish(run, model, tokenizer, records, len(tokens))


def _check_finite(what: str, value: float, step: int, run: TrainingRun) -> None:
    if not math.isfinite(value):
        raise ValueError(
            f"the {what} of step {step + 1} is {value}: lower the learning rate of {run.settings.learning_rate}; "
            f"what was saved in {run.out} before is whole, and for another learning rate {ANOTHER}"
        )


def _remove_later_snapshots(folder: Path, step: int) -> None:
    """Those of steps that are trained anew now: with another number of steps, they would be of another curve."""
    for later, path in snapshots(folder).items():
        if later > step:
            path.unlink()


def _make_tokenizer(run: TrainingRun) -> Tokenizer:
    """The run's own vocabulary, learned from its text unless it has been."""
    kept, path = run.claim(), run.out / "tokenizer.model"
    if not path.exists():
        if "tokenizer_sha256" in kept:
            raise ValueError(f"{path}, which this run began with, is gone: {ANOTHER}")
        train_tokenizer(run.corpus.files.values(), run.config.vocab_size, path)
    run.check_tokenizer(kept)
    tokenizer = Tokenizer(path)
    if tokenizer.n_vocab != run.config.vocab_size:
        raise ValueError(f"{path} has {tokenizer.n_vocab} tokens, not {run.config.vocab_size}: {ANOTHER}")
    return tokenizer


def _finish(
    run: TrainingRun, model: Transformer, tokenizer: Tokenizer, records: list[dict], n_tokens: int
) -> None:
    out, corpus, settings = run.out, run.corpus, run.settings
    try:
        save_huggingface(model.eval(), out, torch.bfloat16, tokenizer.bos_id, tokenizer.eos_id)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"the model cannot be written into {out} ({error}): make room, and run it again"
        ) from error
    model.bfloat16().float()  # the weights that the file holds
    _, seen = settings.shape_at(settings.steps - 1)  # in longer windows one would measure how it extrapolates
    nats, bits = bits_per_byte(model, tokenizer, corpus.held_out, seen)
    write_csv(out / "loss.csv", _rounded(records))
    curve = learning_curve(out / "snapshots", corpus, settings, model.config, tokenizer)
    write_csv(out / "learning.csv", _rounded(curve))
    summary = {
        "settings": asdict(settings),
        "parameters": model.config.n_params,
        "corpus": {
            "sha256": corpus.sha256,
            "files": len(corpus.files),
            "bytes": sum(len(text.encode()) for text in corpus.files.values()),
            "tokens": n_tokens,
        },
        "held_out": {
            "bytes": len(corpus.held_out.encode()),
            "nats_per_token": round(nats, 4),
            "bits_per_byte": round(bits, 4),
        },
        "seconds": round(sum(record["seconds"] for record in records)),  # of the steps alone
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }
    write_json(out / "training.json", summary)


def _rounded(rows: list[dict]) -> list[dict]:
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
