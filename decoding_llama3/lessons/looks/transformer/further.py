"""Part 7 - what is shown of tiny's own training, and in 'Going further': compression and speed."""

import csv
from typing import Any

from decoding_llama3.experiments import snapshots, training
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inference.generator import generate
from decoding_llama3.inspect import probe
from decoding_llama3.json_files import read_json
from decoding_llama3.lessons.figures import transformer_further as figures
from decoding_llama3.lessons.show import show_figure, show_table
from decoding_llama3.lessons.subject import Subject
from decoding_llama3.transformer import Transformer


def moments(subject: Subject, opening: str, text: str, tokens: int = 14) -> list[float]:
    """Tiny at four moments of its training: the loss on `text`, and how it goes on. Returns the losses."""
    settings = _read("tiny-llama3/training.json")["settings"]
    untrained = Transformer(subject.model.config)
    training.initialize(untrained, settings["seed"])
    nets = {0: untrained}
    for step, path in snapshots.snapshots().items():
        nets[step] = snapshots.load_snapshot(path, subject.model.config)
    nets[settings["steps"]] = subject.model
    prompt, rows, losses = subject.ids(opening)[0].tolist(), [], []
    for step, net in nets.items():
        losses.append(probe.loss_of(net, subject.ids(text)))
        said = generate(net, prompt, tokens, temperature=0.7, top_p=0.9, seed=1)
        rows.append([f"{step:,}", f"{losses[-1]:.2f}", " ".join(subject.tokenizer.decode(said).split())])
    caption = "one draw each: temperature 0.7, top-p 0.9, seed 1"
    show_table(rows, ["steps", "loss on the tale", f"after {opening!r} it writes"], caption)
    return losses


def compression() -> dict[str, float]:
    """Bits per byte of an unseen book: programs that make files small, tables of letters, tiny. Returns them."""
    quality = _read("tiny-llama3/evaluation.json")
    bits, best = quality["bits_per_byte"], quality["ratios"]["best_ngram_order"]
    shown = {
        "gzip": bits["gzip"]["after_training"],
        "xz": bits["xz"]["after_training"],
        "table: next letter from the last 4": bits["ngram"]["5"],
        f"table: next letter from the last {best - 1}": bits["ngram"][str(best)],
        "tiny": bits["model"],
    }
    title = (
        f"Tiny needs {bits['model']:.2f} bits per byte of an unseen book, "
        f"the best table of letters {bits['ngram'][str(best)]:.2f}"
    )
    alt = "Bars of bits per byte of an unseen book: gzip, xz, two tables of letters and tiny."
    show_figure(figures.draw_bits(shown, title), alt)
    known = quality["memorised"]["training"]
    print(f"given the beginnings of {known['prompts']:,} passages that it was trained on, it never wrote", end=" ")
    print(f"more than {known['characters']['longest']} characters of how they go on")
    return shown


def speed_rungs() -> list[float]:
    """Four ways to get the next token from the same weights, as kept: seconds per token, in their order."""
    ladder = _read("benchmarks/ladder-125m.json")
    rungs, machine = ladder["rungs"], ladder["machine"]
    times = [rung["measured_seconds"] for rung in rungs]
    plain, cached, compiled, small = (f"{1e3 * seconds:.3g}" for seconds in times)
    title = f"{plain} ms per token without a cache, {cached} with it; compiled {compiled}, and in int8 {small}"
    alt = f"A dot for each of {', '.join(r['name'] for r in rungs)}, measured, beside what was predicted."
    show_figure(figures.draw_speed_ladder(rungs, title), alt)
    print(f"{ladder['model']}, {ladder['plan']['dtype']}, after {ladder['context']} tokens")
    print(f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}")
    print(f"reads {ladder['limits']['read_bytes_per_s'] / 1e9:.0f} GB/s, ", end="")
    print(f"{ladder['limits']['flops_per_s'] / 1e9:.0f} GFLOP/s in matrix products")
    return times


def heads_learned() -> list[dict[str, float]]:
    """When tiny's best previous-token head and its best induction head came, as its training measured them."""
    with (data_directory() / "tiny-llama3" / "learning.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    jump = max(range(1, len(rows)), key=lambda i: rows[i]["induction"] - rows[i - 1]["induction"])
    before, after = rows[jump - 1], rows[jump]
    fed = _read("tiny-llama3/training.json")["settings"]["repeats"]
    most = max(range(len(fed) - 1), key=lambda i: fed[i]["share"])
    span, share = (fed[most]["from_step"], fed[most + 1]["from_step"]), fed[most]["share"]
    title = (
        f"Steps {before['step']:,.0f} to {after['step']:,.0f}, with {share:.0%} repeated random words: the best "
        f"heads go from {before['previous']:.2f} to {after['previous']:.2f} and from {before['induction']:.2f} to "
        f"{after['induction']:.2f}"
    )
    alt = "Two lines over training steps: how well the best previous-token and the best induction head work."
    show_figure(figures.draw_heads_learned(rows, span, f"{share:.0%} repeated\nrandom words", title), alt)
    return rows


def _read(path: str) -> dict[str, Any]:
    """A JSON file of the package's data."""
    file = data_directory() / path
    return read_json(file, file.name)[0]
