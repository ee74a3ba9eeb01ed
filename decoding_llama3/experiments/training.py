"""Training of the tiny model: any folder of .txt in, a checkpoint in Hugging Face's format out.

A run is a function of its settings, its text and the number of threads. It checkpoints itself, and a run that
was killed and started again ends with the weights of one that never was.
"""

import csv
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments.corpus import UNSCORED, Corpus, Windows, encode_all, repeated_span
from decoding_llama3.experiments.snapshots import load_snapshot, save_snapshot, snapshots
from decoding_llama3.experiments.tokenizer_training import train_tokenizer
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.compile import find_compiler
from decoding_llama3.inspect.heads import head_scores, repeat_losses, repeated_random_tokens
from decoding_llama3.tokenizer import N_SPECIAL, Tokenizer
from decoding_llama3.transformer import Transformer


@dataclass(frozen=True)
class Repeats:
    """From a step on, so many of the sequences are random words said again and again, to grow induction heads."""

    from_step: int
    share: float
    longest: int  # tokens until the words come again, at most

    @classmethod
    def parse(cls, text: str) -> tuple["Repeats", ...]:
        """Phases such as "0:0.05:128,1000:0.01:32"; "" is none."""
        try:
            fields = [phase.split(":") for phase in text.split(",") if phase]
            phases = tuple(cls(int(step), float(share), int(longest)) for step, share, longest in fields)
        except ValueError:
            raise ValueError(f"repeats are step:share:longest, comma, and so on, found {text!r}") from None
        if any(not 0 <= phase.share <= 1 or phase.longest < 4 for phase in phases):
            raise ValueError(f"a share of repeats is from 0 to 1 and the longest 4 or more, found {text!r}")
        return phases


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What a run does. The learning rate rises for `warmup` steps, stays, and falls to zero over the last part."""

    steps: int
    batch: int = 16  # sequences a step
    seq_len: int = 512  # tokens a sequence
    short_steps: int = 0  # the first steps, in which sequences are half as long and twice as many: faster
    repeats: tuple[Repeats, ...] = ()
    learning_rate: float = 6e-3
    warmup: int = 100  # steps
    decay: float = 0.35  # share of the steps in which the learning rate falls
    weight_decay: float = 0.1
    autocast: bool = False  # matrix products in bfloat16
    compile: bool = False  # needs a C++ compiler; half again as fast
    seed: int = 3

    def shape_at(self, step: int) -> tuple[int, int]:
        """Sequences and tokens a sequence."""
        return (2 * self.batch, self.seq_len // 2) if step < self.short_steps else (self.batch, self.seq_len)

    def repeats_at(self, step: int) -> Repeats:
        """The phase that a step is in."""
        begun = [phase for phase in self.repeats if phase.from_step <= step]
        return max(begun, key=lambda phase: phase.from_step, default=Repeats(0, 0.0, 4))

    def learning_rate_at(self, step: int) -> float:
        rising = (step + 1) / self.warmup
        falling = (self.steps - step) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, rising, falling)


def initialize(model: Transformer, seed: int) -> None:
    """Normal weights of std 0.02, smaller by 1/sqrt(2 n_layers) where a layer writes to the residual stream."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            writes = name.endswith(("wo.weight", "w_down.weight"))
            std = 0.02 / math.sqrt(2 * model.config.n_layers) if writes else 0.02
            nn.init.normal_(weight, std=std, generator=generator)


def make_optimizers(model: Transformer, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms; norms do not decay."""
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"training needs the optimizer Muon of torch 2.9 or newer, found torch {torch.__version__}"
        )
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    tables = list({id(p): p for p in (model.tok_embeddings.weight, model.output.weight)}.values())
    adamw = [
        {"params": tables, "weight_decay": settings.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(matrices, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adamw, betas=(0.9, 0.95)),
    ]


@torch.inference_mode()
def bits_per_byte(model: Transformer, tokenizer: Tokenizer, text: str, seq_len: int = 512) -> tuple[float, float]:
    """Loss over the whole text in nats a token and in bits a byte; every token has seq_len / 2 before it."""
    ids = torch.tensor([tokenizer.bos_id, *tokenizer.encode(text)], device=model.norm.weight.device)
    stride, total = seq_len // 2, 0.0
    for start in range(0, len(ids) - 1, stride):
        window = ids[max(0, start - stride) : start + stride + 1]
        fresh = len(ids[start : start + stride + 1]) - 1
        logits = model.output(model.hidden(window[None, :-1])[0, -fresh:]).float()
        total += F.cross_entropy(logits, window[-fresh:], reduction="sum").item()
    return total / (len(ids) - 1), total / math.log(2) / len(text.encode())


def train(
    corpus: Corpus,
    config: LlamaConfig,
    settings: TrainingSettings,
    out: Path,
    device: str = "cpu",
    save_every: int = 100,
) -> Iterator[dict]:
    """Train, yielding a record a step; `out` receives state.pt as it goes and the finished model at the end.

    Every `save_every` steps the run is saved, and the loss on the first 64 kB of the held-out file is measured.
    `out/snapshots` keeps the weights of these steps, of step 0, and after 1 % and 10 % of the steps.
    """
    tokenizer = _tokenizer(corpus, config, out)
    tokens = encode_all(tokenizer, list(corpus.files.values()))
    lengths = {settings.shape_at(0)[1], settings.seq_len}
    windows = {length: Windows(tokenizer, tokens, length, settings.seed) for length in lengths}
    model = Transformer(config)
    initialize(model, settings.seed)
    model.to(device)
    optimizers, loss_of = make_optimizers(model, settings), _loss_of(settings, device)
    records = _resume(out / "state.pt", corpus, config, settings, model, optimizers)
    if not records:
        save_snapshot(model, out / "snapshots", 0)
    for step in range(len(records), settings.steps):
        started = time.perf_counter()
        batch = _batch(windows, tokenizer, settings, step)
        loss = _step(model, loss_of, optimizers, batch, settings, step)
        seconds = time.perf_counter() - started
        n_tokens = (step + 1) * settings.batch * settings.seq_len
        records.append({"step": step + 1, "tokens": n_tokens, "loss": loss, "held_out": None, "seconds": seconds})
        if step + 1 in (settings.steps // 100, settings.steps // 10):
            save_snapshot(model, out / "snapshots", step + 1)
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            seq_len = settings.shape_at(step)[1]
            records[-1]["held_out"] = bits_per_byte(model, tokenizer, corpus.held_out[:64_000], seq_len)[0]
            save_snapshot(model, out / "snapshots", step + 1)
            _save(out / "state.pt", corpus, config, settings, model, optimizers, records)
        yield records[-1]
    _finish(out, corpus, settings, model, tokenizer, records, len(tokens))


def learning_curve(
    folder: Path, corpus: Corpus, settings: TrainingSettings, config: LlamaConfig, tokenizer: Tokenizer
) -> list[dict]:
    """What each snapshot in `folder` could do: loss on the held-out text, best heads, loss on repeated words.

    `held_out` is in bits a byte, on the first 64 kB; `previous` and `induction` are the largest `head_scores` on
    random words said twice or more; `first_copy` and `later_copies` are the losses there, in nats a token.
    """
    longest = min(64, settings.seq_len // 4)
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


def _tokenizer(corpus: Corpus, config: LlamaConfig, out: Path) -> Tokenizer:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "tokenizer.model"
    if not path.exists():
        train_tokenizer(corpus.files.values(), config.vocab_size, path)
    return Tokenizer(path)


def _batch(windows: dict[int, Windows], tokenizer: Tokenizer, settings: TrainingSettings, step: int):
    n, seq_len = settings.shape_at(step)
    inputs, targets = (rows.clone() for rows in windows[seq_len].batch(step, n))
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    repeats = settings.repeats_at(step)
    for row in (torch.rand(n, generator=generator) < repeats.share).nonzero().flatten():
        inputs[row], targets[row] = repeated_span(tokenizer, seq_len, repeats.longest, generator)
    return inputs, targets


def _loss(model: Transformer, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=UNSCORED)


def _loss_of(settings: TrainingSettings, device: str) -> Callable:
    if not settings.compile:
        return _loss
    if device == "cpu" and find_compiler() is None:
        raise ValueError("no C++ compiler found, which compiling needs: install g++ or clang, or leave it out")
    return torch.compile(_loss, dynamic=False)


def _step(model, loss_of: Callable, optimizers, batch: tuple[Tensor, Tensor], settings, step: int) -> float:
    device = model.norm.weight.device
    inputs, targets = (tokens.to(device) for tokens in batch)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.autocast):
        loss = loss_of(model, inputs, targets)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(step)
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _identity(corpus: Corpus, config: LlamaConfig, settings: TrainingSettings) -> dict:
    # The number of steps and the decay may change: before the decay starts, the runs are the same.
    fixed = {k: v for k, v in asdict(settings).items() if k not in ("steps", "decay")}
    return {"corpus": corpus.sha256, "config": asdict(config), "settings": fixed}


def _save(path: Path, corpus, config, settings, model, optimizers, records) -> None:
    state = {
        "run": _identity(corpus, config, settings),
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "records": records,
    }
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    os.replace(fresh, path)  # at once or not at all: a kill while saving leaves the state before


def _resume(path: Path, corpus, config, settings, model, optimizers) -> list[dict]:
    if not path.exists():
        return []
    state = torch.load(path, weights_only=True, map_location=model.norm.weight.device)
    if state["run"] != _identity(corpus, config, settings):
        raise ValueError(f"{path} belongs to a run with other text or settings: give another --out, or delete it")
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["records"]


def _finish(out: Path, corpus, settings, model, tokenizer, records, n_tokens: int) -> None:
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    save_huggingface(model.eval(), out, dtype=torch.bfloat16, **ids)
    model.bfloat16().float()  # the weights that the file holds
    _, seen = settings.shape_at(settings.steps - 1)  # in longer windows one would measure how it extrapolates
    nats, bits = bits_per_byte(model, tokenizer, corpus.held_out, seen)
    _write_csv(out / "loss.csv", records)
    _write_csv(out / "learning.csv", learning_curve(out / "snapshots", corpus, settings, model.config, tokenizer))
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
    (out / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
