"""The ablation lab: small Llamas in which one part is exchanged, trained side by side on the same data.

Every variant is `Transformer` as the package builds it, with parts swapped from outside; no component knows of
it. All of a seed's variants see the same batches and start from the same weights wherever a weight has the same
name and shape, so that their losses may be compared pair by pair. `python -m decoding_llama3 ablate` runs it all.

What it cannot show: a model of about 100,000 parameters that reads 64 characters at a time says nothing about
stability at scale, about long contexts or about speed on a GPU. It shows what these sizes and this recipe give.
"""

import csv
import hashlib
import math
import multiprocessing
import os
import platform
import statistics
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from decoding_llama3.attention import Attention
from decoding_llama3.config import LlamaConfig
from decoding_llama3.experiments.training import initialize
from decoding_llama3.feed_forward import FeedForward
from decoding_llama3.inference.data import data_directory
from decoding_llama3.norm import RMSNorm
from decoding_llama3.transformer import Transformer, TransformerBlock

CHOICES = {  # switch: what it can be set to, Llama 3's own part first
    "norm": ("RMSNorm", "LayerNorm", "none", "post-norm"),
    "position": ("RoPE", "learned", "sinusoidal", "none"),
    "kv_heads": ("GQA", "MHA", "MQA"),
    "feed_forward": ("SwiGLU", "ReLU", "GELU", "bilinear", "GLU", "ReGLU", "GEGLU"),
    "tying": ("untied", "tied"),
    "scale": ("1/sqrt(head_dim)", "none"),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting of the switches; without arguments it is Llama 3. A value not in `CHOICES` raises ValueError."""

    norm: str = "RMSNorm"
    position: str = "RoPE"
    kv_heads: str = "GQA"
    feed_forward: str = "SwiGLU"
    tying: str = "untied"
    scale: str = "1/sqrt(head_dim)"

    def __post_init__(self) -> None:
        for switch, value in asdict(self).items():
            if value not in CHOICES[switch]:
                raise ValueError(f"{switch} is one of {', '.join(CHOICES[switch])}, found {value!r}")


LLAMA3 = "llama3"  # the group of the one baseline that all groups share
GROUPS = {switch: {name: Variant(**{switch: name}) for name in names} for switch, names in CHOICES.items()}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Size and recipe, the same for all variants: AdamW, a warm-up, then a cosine down to a tenth."""

    dim: int = 64
    n_layers: int = 2
    n_heads: int = 4
    hidden_dim: int = 176  # of a gated feed-forward; one without gate is half again as wide
    seq_len: int = 64  # characters
    batch: int = 16  # sequences a step
    steps: int = 1000
    learning_rate: float = 3e-3
    warmup: int = 20  # steps
    weight_decay: float = 0.1  # of matrices and tables; norms do not decay
    eval_every: int = 50  # steps

    def learning_rate_at(self, step: int) -> float:
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.55 + 0.45 * math.cos(math.pi * progress))


class PostNormBlock(TransformerBlock):
    """The block of the first transformer (arXiv:1706.03762): add first, then normalise the sum."""

    def forward(self, x, positions, rotation, mask=None, cache=None):
        h = self.attention_norm(x + self.attention(x, positions, rotation, mask, cache))
        return self.ffn_norm(h + self.feed_forward(h))


class UnrotatedAttention(Attention):
    """Attention whose queries and keys are turned by no angle: no word of where they stand."""

    def forward(self, x, positions, rotation, mask=None, cache=None):
        no_turn = torch.tensor([1.0, 0.0]).expand_as(rotation)  # cosine and sine of 0
        return super().forward(x, positions, no_turn, mask, cache)


class UnscaledQuery(nn.Linear):
    """wq with its result times sqrt(head_dim), so that attention's own division leaves the plain q k^T."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__(dim, dim, bias=False)
        self.head_dim = head_dim

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return super().forward(x) * self.head_dim**0.5


class PositionedEmbedding(nn.Embedding):
    """Token vectors plus a vector for each position, for whole sequences from position 0."""

    def __init__(self, tokens: nn.Embedding, positions: Float[Tensor, "length dim"]) -> None:
        super().__init__(*tokens.weight.shape, _weight=tokens.weight)
        self.weight = tokens.weight  # the very parameter: a tied output goes on sharing it
        self.positions = positions  # a parameter if learned, else a buffer

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        return super().forward(tokens) + self.positions[: tokens.shape[1]]


ACTIVATIONS = {  # what bends the gate of a gated feed-forward, or the hidden numbers of one without
    "ReLU": nn.ReLU, "GELU": nn.GELU, "bilinear": nn.Identity, "GLU": nn.Sigmoid, "ReGLU": nn.ReLU,
    "GEGLU": nn.GELU,
}  # fmt: skip


class GatedFeedForward(FeedForward):
    """SwiGLU with another activation in place of SiLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: LlamaConfig, activation: nn.Module) -> None:
        super().__init__(config)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.w_down(self.activation(self.w_gate(x)) * self.w_up(x))


class UngatedFeedForward(nn.Module):
    """Widen, bend, narrow: two matrices in place of three, half again as wide, so that parameters are equal.

    An odd hidden_dim is rounded down: that costs one row and one column, dim parameters a layer.
    """

    def __init__(self, config: LlamaConfig, activation: nn.Module) -> None:
        super().__init__()
        width = 3 * config.hidden_dim // 2
        self.w_up = nn.Linear(config.dim, width, bias=False)
        self.activation = activation
        self.w_down = nn.Linear(width, config.dim, bias=False)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.w_down(self.activation(self.w_up(x)))


def sinusoidal_table(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """PE(t, 2i) = sin(t / 10000^(2i/dim)), PE(t, 2i+1) = cos of the same (Vaswani et al. 2017, 3.5)."""
    speeds = 10_000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)  # radians a position
    angles = torch.outer(torch.arange(length, dtype=torch.float64), speeds)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).float()


def build(variant: Variant, seed: int, vocab_size: int, settings: Settings | None = None) -> Transformer:
    """A model with the variant's parts and the seed's weights; it takes whole sequences, without caches.

    Post-norm has no norm at the end, since the last block already ends in one; "none" has no norm at all. All
    start from Llama 3's small weights: where no norm lifts it to 1, the stream starts at the embedding's 0.02.
    """
    settings = settings or Settings()
    kv_heads = {"MHA": settings.n_heads, "GQA": settings.n_heads // 2, "MQA": 1}
    config = LlamaConfig(
        dim=settings.dim,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        n_kv_heads=kv_heads[variant.kv_heads],
        hidden_dim=settings.hidden_dim,
        vocab_size=vocab_size,
        rope_theta=10_000.0,
        tie_embeddings=variant.tying == "tied",
        max_seq_len=settings.seq_len,
    )
    model = Transformer(config)
    _swap_norms(model, variant.norm)
    _swap_positions(model, variant.position)
    _swap_feed_forwards(model, variant.feed_forward)
    if variant.scale == "none":
        for layer in model.layers:
            layer.attention.wq = UnscaledQuery(config.dim, config.head_dim)
    _initialize(model, seed)
    return model


def _swap_norms(model: Transformer, norm: str) -> None:
    config = model.config
    if norm == "post-norm":
        model.layers = nn.ModuleList(PostNormBlock(config) for _ in model.layers)
        model.norm = nn.Identity()
    elif norm != "RMSNorm":
        for name in [name for name, module in model.named_modules() if isinstance(module, RMSNorm)]:
            fresh = nn.LayerNorm(config.dim, config.norm_eps) if norm == "LayerNorm" else nn.Identity()
            model.set_submodule(name, fresh)


def _swap_positions(model: Transformer, position: str) -> None:
    if position == "RoPE":
        return
    for layer in model.layers:
        layer.attention = UnrotatedAttention(model.config)
    table = sinusoidal_table(model.config.max_seq_len, model.config.dim)
    if position == "learned":
        model.tok_embeddings = PositionedEmbedding(model.tok_embeddings, nn.Parameter(torch.empty_like(table)))
    elif position == "sinusoidal":
        # As loud as the tokens at the start, root mean square 0.02. At full size it drowns them, 35 times louder:
        # held-out loss 2.32 after 1,000 steps in place of 2.10, mean of two seeds.
        model.tok_embeddings = PositionedEmbedding(model.tok_embeddings, nn.Buffer(0.02 * 2**0.5 * table))


def _swap_feed_forwards(model: Transformer, feed_forward: str) -> None:
    if feed_forward == "SwiGLU":
        return
    kind = UngatedFeedForward if feed_forward in ("ReLU", "GELU") else GatedFeedForward
    for layer in model.layers:
        layer.feed_forward = kind(model.config, ACTIVATIONS[feed_forward]())


@torch.no_grad()
def _initialize(model: Transformer, seed: int) -> None:
    # A seed of their own for the weights that Llama 3 lacks: numbers drawn twice would tie two matrices together.
    initialize(model, seed + 1_000_003)
    llama = Transformer(replace(model.config, n_kv_heads=model.config.n_heads // 2, tie_embeddings=False))
    initialize(llama, seed)
    own = dict(model.named_parameters())
    for name, weight in llama.named_parameters():
        if name in own and own[name].shape == weight.shape:
            own[name].copy_(weight)


@dataclass(frozen=True)
class Text:
    """Characters as numbers. The held-out files are none of those trained on."""

    training: Int[Tensor, " characters"]
    held_out: Int[Tensor, " unseen"]
    vocabulary: str
    sha256: str

    @classmethod
    def of_python(cls, training: int = 1_000_000, held_out: int = 100_000) -> "Text":
        """The source of Python's own library, its ASCII files by name, until there are so many characters."""
        folder = Path(sysconfig.get_path("stdlib"))
        files = (path.read_text(encoding="latin-1") for path in sorted(folder.glob("*.py")))
        files = (text for text in files if text.isascii())
        parts = [_take(files, training), _take(files, held_out)]
        if len(parts[1]) < held_out:
            raise ValueError(
                f"{folder} holds {sum(map(len, parts)):,} characters of Python source, but the lab reads "
                f"{training + held_out:,}: run it with a Python that has its library as .py files"
            )
        vocabulary = "".join(sorted(set("".join(parts))))
        number = torch.zeros(128, dtype=torch.int64)
        number[list(vocabulary.encode())] = torch.arange(len(vocabulary))
        ids = (number[torch.frombuffer(bytearray(part, "ascii"), dtype=torch.uint8).long()] for part in parts)
        return cls(*ids, vocabulary, hashlib.sha256("".join(parts).encode()).hexdigest())

    def batch(self, settings: Settings, generator: torch.Generator) -> Int[Tensor, "batch length"]:
        """Windows of seq_len + 1 characters from anywhere in the training text."""
        starts = torch.randint(len(self.training) - settings.seq_len, (settings.batch,), generator=generator)
        return self.training[starts[:, None] + torch.arange(settings.seq_len + 1)]

    def held_out_windows(self, seq_len: int, windows: int = 128) -> Int[Tensor, "windows length"]:
        """Windows of seq_len + 1 characters, evenly spread over the held-out text: the same for every run."""
        starts = torch.linspace(0, len(self.held_out) - seq_len - 1, windows).long()
        return self.held_out[starts[:, None] + torch.arange(seq_len + 1)]


def _take(files: Iterator[str], characters: int) -> str:
    text = ""
    while len(text) < characters and (file := next(files, None)) is not None:
        text += file
    return text


class Point(NamedTuple):
    """One point of a curve; losses in nats a character."""

    step: int
    train_loss: float  # mean over the steps since the point before
    held_out_loss: float
    seconds: float | None = None  # of the training steps so far; not kept in the files


Curves = Mapping[str, Mapping[int, Sequence[Point]]]  # variant: seed: points


def train_variant(variant: Variant, seed: int, settings: Settings | None = None) -> Iterator[Point]:
    """Train one model on one thread, yielding a point every `eval_every` steps and after the last.

    Weights and batches depend on the seed alone: the same run on the same machine gives the same points.
    """
    settings = settings or Settings()
    text = Text.of_python()
    return train_model(build(variant, seed, len(text.vocabulary), settings), text, seed, settings)


def train_model(model: Transformer, text: Text, seed: int, settings: Settings) -> Iterator[Point]:
    """Train `model` on `text` as the lab does; `seed` draws the batches. Yields like `train_variant`."""
    windows = text.held_out_windows(settings.seq_len)
    generator = torch.Generator().manual_seed(seed)
    optimizer = _make_optimizer(model, settings)
    seconds = 0.0
    for start in range(0, settings.steps, settings.eval_every):
        stop = min(start + settings.eval_every, settings.steps)
        with _one_thread():
            started = time.perf_counter()
            losses = [
                _step(model, optimizer, text.batch(settings, generator), settings.learning_rate_at(step))
                for step in range(start, stop)
            ]
            seconds += time.perf_counter() - started
            with torch.no_grad():
                held_out = loss_of(model, windows).item()
        yield Point(stop, statistics.fmean(losses), held_out, seconds)


def _make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    norms = [p for p in model.parameters() if p.dim() == 1]
    others = [p for p in model.parameters() if p.dim() > 1]
    groups = [{"params": others, "weight_decay": settings.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.95))


@torch.enable_grad()  # a notebook may have switched gradients off
def _step(model: nn.Module, optimizer: torch.optim.Optimizer, windows: Tensor, learning_rate: float) -> float:
    loss = loss_of(model, windows)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def loss_of(model: nn.Module, windows: Int[Tensor, "batch length"]) -> Float[Tensor, ""]:
    """Mean loss, in nats a character, of each character but the first of every window."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Run(NamedTuple):
    """One training of the lab; `group` is `LLAMA3` for the baseline that all groups share."""

    group: str
    name: str
    seed: int

    @property
    def variant(self) -> Variant:
        return Variant() if self.group == LLAMA3 else GROUPS[self.group][self.name]


def missing_runs(groups: Sequence[str], seeds: int, settings: Settings, out: Path) -> list[Run]:
    """The runs of these groups, the baseline among them, that `out` does not hold yet; seeds from 0 on.

    Other settings or another text than those of the runs in `out` raise ValueError.
    """
    for group in groups:
        _check_group(group)
    done = {_run_of(row): row for row in _read(out / "runs.csv")}
    expected = _conditions(settings, Text.of_python())
    for run, row in done.items():
        for name, value in expected.items():
            if row[name] != str(value):
                raise ValueError(
                    f"{out / 'runs.csv'} has runs with {name} {row[name]} ({run.group}, {run.name}), but {name} "
                    f"{value} was asked for: give another --out, or delete that folder"
                )
    runs = [Run(LLAMA3, "Llama 3", seed) for seed in range(seeds)]
    runs += [Run(g, name, seed) for seed in range(seeds) for g in groups for name in CHOICES[g][1:]]
    return [run for run in sorted(runs, key=lambda run: run.seed) if run not in done]


def run_lab(runs: Sequence[Run], settings: Settings, out: Path, jobs: int = 1) -> Iterator[dict]:
    """Train `runs`, `jobs` at a time, yielding the row of runs.csv that each has written into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    work = [(run, settings) for run in runs]
    if jobs == 1:
        for run, item in zip(runs, work, strict=True):
            yield _write(run, *_finish(item), out)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for row, points in pool.imap_unordered(_finish, work):
            yield _write(_run_of(row), row, points, out)


def _finish(work: tuple[Run, Settings]) -> tuple[dict, list[Point]]:
    run, settings = work
    text = Text.of_python()
    model = build(run.variant, run.seed, len(text.vocabulary), settings)
    points = list(train_model(model, text, run.seed, settings))
    row = {
        "group": run.group,
        "variant": run.name,
        "seed": run.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_loss": f"{points[-1].held_out_loss:.4f}",
        "seconds": f"{points[-1].seconds:.1f}",
        "n_kv_heads": model.config.n_kv_heads,
        **_conditions(settings, text),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, 1 thread",
    }
    return row, points


def _conditions(settings: Settings, text: Text) -> dict:
    return asdict(settings) | {"vocabulary": len(text.vocabulary), "text_sha256": text.sha256[:12]}


def _write(run: Run, row: dict, points: Sequence[Point], out: Path) -> dict:
    # The curve first: a run counts as done by its row in runs.csv, and only then is its curve there for sure.
    path = out / f"{run.group}.csv"
    rows = [old for old in _read(path) if (old["variant"], old["seed"]) != (run.name, str(run.seed))]
    for point in points:
        losses = {"train_loss": f"{point.train_loss:.4f}", "held_out_loss": f"{point.held_out_loss:.4f}"}
        rows.append({"variant": run.name, "seed": run.seed, "step": point.step, **losses})
    _replace(path, rows)
    _replace(out / "runs.csv", [old for old in _read(out / "runs.csv") if _run_of(old) != run] + [row])
    return row


def _replace(path: Path, rows: Sequence[Mapping]) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(fresh, path)  # at once or not at all


def _read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _run_of(row: Mapping) -> Run:
    return Run(row["group"], row["variant"], int(row["seed"]))


def _check_group(group: str) -> None:
    if group not in GROUPS:
        raise ValueError(f"no group of variants is called {group!r}; there are {', '.join(GROUPS)}")


def read_runs(folder: Path | None = None) -> list[dict]:
    """The rows of runs.csv, a run each, values as text; from the package's own data without `folder`."""
    return _read((folder or data_directory() / "ablations") / "runs.csv")


def read_curves(group: str, folder: Path | None = None) -> dict[str, dict[int, list[Point]]]:
    """Variant: seed: points, Llama 3's own variant first; from the package's own data without `folder`."""
    _check_group(group)
    folder = folder or data_directory() / "ablations"
    curves = {name: {} for name in GROUPS[group]}
    baseline = CHOICES[group][0]
    for file, rename in ((LLAMA3, {"Llama 3": baseline}), (group, {})):
        for row in _read(folder / f"{file}.csv"):
            name = rename.get(row["variant"], row["variant"])
            point = Point(int(row["step"]), float(row["train_loss"]), float(row["held_out_loss"]))
            curves[name].setdefault(int(row["seed"]), []).append(point)
    missing = [name for name, seeds in curves.items() if not seeds]
    if missing:
        raise ValueError(
            f"{folder} has no run of {', '.join(missing)}: make it with "
            f"`python -m decoding_llama3 ablate {group} --out {folder}`"
        )
    return curves


def rerun(group: str, name: str, seed: int, folder: Path | None = None) -> tuple[list[Point], list[Point]]:
    """Train one run of the lab again, now: its curve of today, and the one kept in `folder`.

    The same Python and torch on the same kind of processor give the same numbers to the last digit kept.
    Another version of Python has another library, so another text: then only the picture is the same.
    """
    curves = read_curves(group, folder)
    if name not in curves or seed not in curves[name]:
        kept = "; ".join(f"{name}: seeds {', '.join(map(str, seeds))}" for name, seeds in curves.items())
        raise ValueError(f"no run of {name!r} with seed {seed!r} is kept; there are {kept}")
    row = read_runs(folder)[0]
    kinds = {field.name: field.type for field in fields(Settings)}
    settings = Settings(**{key: kind(row[key]) for key, kind in kinds.items()})
    return list(train_variant(GROUPS[group][name], seed, settings)), curves[name][seed]


def same_text(folder: Path | None = None) -> bool:
    """Whether this Python's library is the text of the runs kept in `folder`: another may be easier or harder."""
    return Text.of_python().sha256.startswith(read_runs(folder)[0]["text_sha256"])


@dataclass(frozen=True)
class Difference:
    """Final held-out loss of a variant minus Llama 3's, over seeds; in nats a character."""

    mean: float
    sd: float  # standard deviation over the seeds
    lowest: float
    highest: float
    seeds: int
    verdict: Literal["lower", "higher", "none"]


def verdict(group: str, folder: Path | None = None) -> dict[str, Difference]:
    """For each variant but Llama 3's own: does its final loss differ by more than chance? See `compare`."""
    return compare(read_curves(group, folder))


def compare(curves: Curves) -> dict[str, Difference]:
    """Each variant against the first, over the seeds that both have (at least three).

    A difference counts, as "lower" or "higher", if its mean exceeds twice its standard deviation over the seeds;
    otherwise the verdict is "none". With five seeds that is a paired t of 4.47, which pure chance passes once in
    90 comparisons; with three it is a t of 3.46 and once in 13. A loss that is no number counts as infinite.
    """
    (baseline, reference), *others = curves.items()
    found = {}
    for name, seeds in others:
        paired = sorted(reference.keys() & seeds.keys())
        if len(paired) < 3:
            raise ValueError(
                f"{name} and {baseline} share {len(paired)} seeds: a verdict needs 3 or more, to see their spread"
            )
        found[name] = _difference([_final(seeds[seed]) - _final(reference[seed]) for seed in paired])
    return found


def _final(points: Sequence[Point]) -> float:
    loss = points[-1].held_out_loss
    return loss if math.isfinite(loss) else math.inf


def _difference(values: Sequence[float]) -> Difference:
    mean = statistics.fmean(values)
    sd = statistics.stdev(values) if math.isfinite(mean) else math.nan
    counts = math.isinf(mean) or abs(mean) > 2 * sd
    word = "none" if not counts else "lower" if mean < 0 else "higher"
    return Difference(mean, sd, min(values), max(values), len(values), word)
