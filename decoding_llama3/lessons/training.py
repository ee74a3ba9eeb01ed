"""Training of the tiny model: any folder of .txt in, a checkpoint in Hugging Face's format out.

A run is a function of its settings, its text and the number of threads. It checkpoints itself, and a run that
was killed and started again ends with the weights of one that never was.
"""

import csv
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint import save_huggingface
from decoding_llama3.lessons.tokenizer_training import train_tokenizer
from decoding_llama3.tokenizer import Tokenizer
from decoding_llama3.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What a run does. The learning rate rises for `warmup` steps, stays, and falls to zero over the last part."""

    steps: int
    batch: int = 16  # sequences a step
    seq_len: int = 512  # tokens a sequence
    learning_rate: float = 6e-3
    warmup: int = 100  # steps
    decay: float = 0.35  # share of the steps in which the learning rate falls
    weight_decay: float = 0.1
    autocast: bool = False  # matrix products in bfloat16
    compile: bool = False  # needs a C++ compiler; half again as fast
    seed: int = 3

    def learning_rate_at(self, step: int) -> float:
        rising = (step + 1) / self.warmup
        falling = (self.steps - step) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, rising, falling)


@dataclass(frozen=True)
class Corpus:
    """A folder of .txt, one paragraph a line. The held-out file is seen by neither tokenizer nor model."""

    files: dict[str, str]  # name: text
    held_out: str
    sha256: str  # of the training files, one after another in the order of their names

    @classmethod
    def read(cls, folder: Path, held_out: str) -> "Corpus":
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}
        if held_out not in files or len(files) < 2:
            raise ValueError(
                f"{folder} has {len(files)} .txt files and {'a' if held_out in files else 'no'} {held_out}: "
                "name one file as held out and leave at least one to train on"
            )
        text = files.pop(held_out)
        digest = hashlib.sha256("".join(files.values()).encode()).hexdigest()
        return cls(files, text, digest)


class Windows:
    """Sequences of `seq_len` tokens that start at a paragraph, each behind a begin-of-text token, in random order.

    Batch `step` depends on seed and step alone, so that a resumed run sees what an unbroken one would.
    """

    def __init__(self, tokenizer: Tokenizer, texts: list[str], seq_len: int, seed: int) -> None:
        ids = [token for text in texts for token in tokenizer.encode(text.rstrip("\n") + "\n")]
        self.tokens = torch.tensor(ids, dtype=torch.int64)
        ends = torch.tensor([tokenizer.token_bytes(token).endswith(b"\n") for token in range(tokenizer.n_vocab)])
        self.paragraphs = ends[self.tokens].nonzero().flatten()[:-1] + 1  # many a token is '."' with its line end
        self.bos, self.seq_len, self.seed = tokenizer.bos_id, seq_len, seed
        self.per_epoch = (len(ids) - 2 * seq_len) // seq_len
        if self.per_epoch < 1 or len(self.paragraphs) == 0:
            raise ValueError(
                f"the text has {len(ids)} tokens in {len(self.paragraphs) + 1} lines: too little for sequences "
                f"of {seq_len}; give more text or a smaller seq_len"
            )
        self._epoch = lru_cache(maxsize=2)(self._order)

    def batch(self, step: int, batch: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, (batch, seq_len) each."""
        rows = [self._window(index) for index in range(step * batch, (step + 1) * batch)]
        tokens = torch.stack(rows)
        return tokens[:, :-1], tokens[:, 1:]

    def _window(self, index: int) -> Tensor:
        epoch, i = divmod(index, self.per_epoch)
        start = self._epoch(epoch)[i]
        return torch.cat((torch.tensor([self.bos]), self.tokens[start : start + self.seq_len]))

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        offset = torch.randint(self.seq_len, (1,), generator=generator)
        starts = offset + self.seq_len * torch.arange(self.per_epoch)
        nearest = torch.searchsorted(self.paragraphs, starts).clamp(max=len(self.paragraphs) - 1)
        starts = self.paragraphs[nearest].clamp(max=len(self.tokens) - self.seq_len)
        return starts[torch.randperm(self.per_epoch, generator=generator)]


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
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer_path = out / "tokenizer.model"
    if not tokenizer_path.exists():
        train_tokenizer(corpus.files.values(), config.vocab_size, tokenizer_path)
    tokenizer = Tokenizer(tokenizer_path)
    windows = Windows(tokenizer, list(corpus.files.values()), settings.seq_len, settings.seed)
    model = Transformer(config)
    initialize(model, settings.seed)
    model.to(device)
    if settings.compile:
        model.compile()
    optimizers = make_optimizers(model, settings)
    records = _resume(out / "state.pt", corpus, config, settings, model, optimizers)
    for step in range(len(records), settings.steps):
        started = time.perf_counter()
        loss = _step(model, optimizers, windows.batch(step, settings.batch), settings, step)
        seconds = time.perf_counter() - started
        tokens = (step + 1) * settings.batch * settings.seq_len
        record = {"step": step + 1, "tokens": tokens, "loss": loss, "held_out": None, "seconds": seconds}
        records.append(record)
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            sample = corpus.held_out[:64_000]
            record["held_out"] = bits_per_byte(model, tokenizer, sample, settings.seq_len)[0]
            _save(out / "state.pt", corpus, config, settings, model, optimizers, records)
        yield record
    _finish(out, corpus, settings, model, tokenizer, records, len(windows.tokens))


def _step(model, optimizers, batch: tuple[Tensor, Tensor], settings: TrainingSettings, step: int) -> float:
    device = model.norm.weight.device
    inputs, targets = (tokens.to(device) for tokens in batch)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.autocast):
        logits = model(inputs)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
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
    save_huggingface(model.eval(), out, dtype=torch.bfloat16)
    model.bfloat16().float()  # the weights that the file holds
    nats, bits = bits_per_byte(model, tokenizer, corpus.held_out, settings.seq_len)
    with (out / "loss.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=records[0].keys(), lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()})
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
