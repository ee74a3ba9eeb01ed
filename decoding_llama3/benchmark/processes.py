"""One engine in a fresh process: the next one then finds neither memory nor compiler warm.

`python -m decoding_llama3.benchmark.processes JOB RESULT` is the fresh process. It writes its figures after each
measurement, so that those made before a failure or a time limit are not lost.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import decoding_llama3.benchmark.clock as clock
from decoding_llama3.benchmark.engines import OURS, Engine, our_engine
from decoding_llama3.benchmark.huggingface import (
    BASELINES,
    checkpoint_engine,
    import_transformers,
    random_engine,
)
from decoding_llama3.benchmark.limits import Limits, mean_limits, measure_limits
from decoding_llama3.benchmark.measure import measure_engine, with_speeds
from decoding_llama3.benchmark.peak import peak_bytes, reset_peaks
from decoding_llama3.benchmark.plan import ENGINES, Plan
from decoding_llama3.inference.checkpoint.find import checkpoint_path


def run_in_fresh_process(
    plan: Plan, name: str, folder: Path, seconds: float | None = None
) -> tuple[dict, str | None]:
    """The figures of one engine, and the sentence that says why they are not complete, None if they are.

    After `seconds` the process is ended. Temporary files lie in `folder`, and are gone afterwards.
    """
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as own:
        job, result = Path(own) / "job.json", Path(own) / "result.json"
        job.write_text(json.dumps({"plan": asdict(plan), "engine": name}), encoding="utf-8")
        # An empty cache for compiled code: else the second round would only look up what the first compiled.
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{own}/inductor", "TRITON_CACHE_DIR": f"{own}/triton", "TMPDIR": own}
        command = [sys.executable, "-m", __spec__.name, str(job), str(result)]
        environment, null, pipe = os.environ | caches, subprocess.DEVNULL, subprocess.PIPE
        try:
            ended = subprocess.run(command, env=environment, timeout=seconds, stdout=null, stderr=pipe)
            reason = _how_it_ended(ended)
        except subprocess.TimeoutExpired:
            reason = f"was ended after {seconds:g} seconds, its time limit"
        found = {"figures": {}, "error": None}
        if result.is_file():
            found = json.loads(result.read_text(encoding="utf-8"))
    if found.get("complete"):
        return found["figures"], None
    return found["figures"], found["error"] or f"the process of {name} {reason}"


def measure_figures(plan: Plan, name: str) -> Iterator[dict]:
    """The figures of one engine so far, in this process: limits, load, memory, speeds, limits again.

    Seconds, bytes, tokens per second; the fractions are of the mean of both limits.
    """
    torch.set_num_threads(plan.threads)
    before = measure_limits(plan.own_config, plan.device, plan.torch_dtype)
    importlib.import_module("torch._dynamo")  # the first torch.compile would: no import is to be timed
    if name in BASELINES:
        import_transformers()
    reset_peaks(plan.device)
    start = clock.now(plan.device)
    engine = _load_engine(plan, name)
    figures = {
        "load": clock.now(plan.device) - start,
        "peak_after_load": peak_bytes(plan.device),
        "weight_bytes": engine.weight_bytes,
    }
    lengths = plan.prompts, plan.contexts, plan.new_tokens
    for seconds in measure_engine(engine, plan.config, plan.device, *lengths, calls=plan.calls):
        figures |= seconds | {
            "peak": peak_bytes(plan.device),
            "compile": seconds["first_step"] if ENGINES[name]["compile"] else None,
        }
        yield _against_limits(figures, plan, before, before)
    after = measure_limits(plan.own_config, plan.device, plan.torch_dtype)
    yield _against_limits(figures, plan, before, after)


def _load_engine(plan: Plan, name: str) -> Engine:
    if name in OURS:
        return our_engine(plan.load(OURS[name]["quantize"]), OURS[name]["compile"])
    compile = BASELINES[name]["compile"]
    if plan.random:
        return random_engine(plan.config, plan.device, plan.torch_dtype, compile)
    return checkpoint_engine(checkpoint_path(plan.source), plan.device, plan.torch_dtype, compile)


def _against_limits(figures: dict, plan: Plan, before: Limits, after: Limits) -> dict:
    limits = mean_limits(before, after)
    return with_speeds(figures, figures["weight_bytes"], plan.own_config, plan.torch_dtype, limits) | {
        "limits": asdict(limits),
        "limits_before": asdict(before),
        "limits_after": asdict(after),
    }


def _how_it_ended(ended: subprocess.CompletedProcess) -> str:
    if ended.returncode == -9:
        return "was killed by the system, which is what happens when memory runs out: take a smaller model"
    how = f"with code {ended.returncode}"
    if ended.returncode < 0:
        how = f"by signal {signal.Signals(-ended.returncode).name}"
    lines = ended.stderr.decode(errors="replace").strip().splitlines() or ["it left no message"]
    return f"ended {how} and without a result: {lines[-1].strip()}"


def run_job(job: Path, result: Path) -> None:
    """What the fresh process does: a plan and an engine's name in, figures and the sentence of an error out."""
    given = json.loads(job.read_text(encoding="utf-8"))
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given["plan"].items()
    }
    name, figures, error = given["engine"], {}, None
    try:
        for figures in measure_figures(Plan(**fields), name):
            _write(result, {"figures": figures, "error": None})
    except ValueError as reason:
        error = str(reason)
    except Exception as reason:  # of torch, of a compiler, of transformers: all end as one sentence
        lines = str(reason).strip().splitlines() or ["no reason given"]
        error = f"the engine {name} failed: {type(reason).__name__}: {lines[0]}"
    _write(result, {"figures": figures, "error": error, "complete": error is None})


def _write(file: Path, found: dict) -> None:
    """All at once, because the process may be ended at any moment."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(file)


if __name__ == "__main__":
    run_job(Path(sys.argv[1]), Path(sys.argv[2]))
