"""The ablation lab as a whole: train what is missing, train one run again."""

import multiprocessing
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from decoding_llama3.experiments.ablation.model import build_variant
from decoding_llama3.experiments.ablation.run import LossPoint, train_model, train_variant
from decoding_llama3.experiments.ablation.store import (
    Run,
    conditions,
    first_run,
    keep_run,
    kept_settings,
    read_curves,
    read_runs,
    run_of,
)
from decoding_llama3.experiments.ablation.text import Text
from decoding_llama3.experiments.ablation.variants import GROUPS, Settings
from decoding_llama3.experiments.files import make_folder, only_one
from decoding_llama3.inference.arguments import check_whole


def run_lab(runs: Sequence[Run], settings: Settings, out: Path, jobs: int = 1) -> Iterator[dict]:
    """Train `runs`, `jobs` at a time, yielding the row of runs.csv that each has written into `out`.

    Raises ValueError where `out` is no folder, its files are damaged, or another lab is at work in it.
    """
    check_whole("jobs", jobs, 1)
    make_folder(out)
    read_runs(out)
    return _locked(runs, settings, out, jobs)


def _locked(runs: Sequence[Run], settings: Settings, out: Path, jobs: int) -> Iterator[dict]:
    with only_one(out, "lab"):
        yield from _train(runs, settings, out, jobs)


def _train(runs: Sequence[Run], settings: Settings, out: Path, jobs: int) -> Iterator[dict]:
    work = [(run, settings) for run in runs]
    if jobs == 1:
        for run, item in zip(runs, work, strict=True):
            yield keep_run(run, *_finish(item), out)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for row, points in pool.imap_unordered(_finish, work):
            yield keep_run(run_of(row), row, points, out)


def _finish(work: tuple[Run, Settings]) -> tuple[dict, list[LossPoint]]:
    run, settings = work
    text = Text.of_python()
    model = build_variant(run.variant, run.seed, len(text.vocabulary), settings)
    points = list(train_model(model, text, run.seed, settings))
    row = {
        "group": run.group,
        "variant": run.name,
        "seed": run.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_loss": f"{points[-1].held_out_loss:.4f}",
        "seconds": f"{points[-1].seconds:.1f}",
        "n_kv_heads": model.config.n_kv_heads,
        **conditions(settings, text),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, 1 thread",
    }
    return row, points


def rerun(group: str, name: str, seed: int, folder: Path | None = None) -> tuple[list[LossPoint], list[LossPoint]]:
    """Train one run of the lab again, now: its curve of today, and the one kept in `folder`.

    The same code, Python and torch on the same kind of processor give the same numbers to the last digit kept.
    From the curves that come with the package, today's code was seen to differ by up to 0.021 nats per character:
    when they were made, query heads shared their keys inside the kernel, and since each has a copy, gradients are
    added up in another order. Another version of Python has another library, so another text: then only the
    picture is the same. Raises ValueError where no such run is kept.
    """
    curves = read_curves(group, folder)
    if name not in curves or seed not in curves[name]:
        kept = "; ".join(f"{name}: seeds {', '.join(map(str, seeds))}" for name, seeds in curves.items())
        raise ValueError(f"no run of {name!r} with seed {seed!r} is kept; there are {kept}")
    settings = kept_settings(folder)
    return list(train_variant(GROUPS[group][name], seed, settings)), curves[name][seed]


def same_text(folder: Path | None = None) -> bool:
    """Whether this Python's library is the text of the runs kept in `folder`: another may be easier or harder."""
    return Text.of_python().sha256.startswith(first_run(folder)["text_sha256"])
