"""The three measurements of `decoding-llama3 bench`, each of a plan, each a dictionary for JSON and for tables.

Engines are measured in turn, several times: one after the other, a machine that slows down would punish the last.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from decoding_llama3.benchmark.huggingface import BASELINES
from decoding_llama3.benchmark.limits import measure_limits
from decoding_llama3.benchmark.machine import machine_info
from decoding_llama3.benchmark.measure import FORMULAS
from decoding_llama3.benchmark.models import random_model
from decoding_llama3.benchmark.plan import Plan
from decoding_llama3.benchmark.processes import measure_figures, run_in_fresh_process
from decoding_llama3.benchmark.results import common_tokens, medians, ratios
from decoding_llama3.benchmark.scaling import measure_scaling
from decoding_llama3.benchmark.stages import speed_ladder
from decoding_llama3.inference.checkpoint.export import save_huggingface

Report = Callable[[str], None]


def run_engines(plan: Plan, report: Report = lambda line: None) -> dict:
    """Measure every engine of `plan`: the medians of fresh processes, and the figures of each round.

    With baselines, random weights are saved once, and all engines read them. Without, each makes them anew. The
    temporary folder with weights, compiled code and results is gone afterwards, whatever happens. An engine that
    fails raises ValueError.
    """
    rounds = []
    with _temporary_folder() as folder:
        read = plan
        if plan.random and any(name in BASELINES for name in plan.engines):
            report(f"random weights of {plan.source}")
            read = dataclasses.replace(plan, source=_save_random(plan, Path(folder)), random=False)
        for number in range(1, plan.runs + 1):
            for name in plan.engines:
                report(f"round {number} of {plan.runs}: {name}")
                rounds.append({"round": number, "engine": name, "figures": _measure(read, name, Path(folder))})
    engines = {n: medians([r["figures"] for r in rounds if r["engine"] == n]) for n in plan.engines}
    return header(plan) | {
        "formulas": FORMULAS,
        "limits": medians([r["figures"]["limits"] for r in rounds]),
        "engines": engines,
        "same_greedy_tokens": {name: common_tokens(engines, name) for name in engines},
        "ratios": ratios(engines),
        "rounds": rounds,
    }


def _measure(plan: Plan, name: str, folder: Path) -> dict:
    """In a fresh process; several that share the model have met each other, and go on as they are."""
    if plan.processes > 1:
        *_, figures = measure_figures(plan, name)
        return figures
    figures, reason = run_in_fresh_process(plan, name, folder)
    if reason is not None:
        raise ValueError(reason)
    return figures


def run_ladder(plan: Plan, report: Report = lambda line: None) -> dict:
    """`speed_ladder` at the shortest of the plan's contexts, in this process, with all that it depends on."""
    report("the machine's limits")
    limits = measure_limits(plan.config, plan.device, plan.torch_dtype)
    stages = speed_ladder(plan.load, plan.contexts[0], plan.new_tokens, limits, report)
    # "rungs" is what the files in data/ call them.
    found = {"context": plan.contexts[0], "limits": asdict(limits), "rungs": [asdict(stage) for stage in stages]}
    return header(plan) | found


def run_scaling(plan: Plan, report: Report = lambda line: None) -> dict:
    """`measure_scaling` at the plan's lengths, compiled if that is one of its engines, with all it depends on."""
    report("the machine's limits")
    limits = measure_limits(plan.config, plan.device, plan.torch_dtype)
    points, lengths = [], {"contexts": plan.contexts, "prompts": plan.prompts, "new_tokens": plan.new_tokens}
    compile = "compiled" in plan.engines
    for point in measure_scaling(plan.load(), limits=limits, compile=compile, **lengths):
        report(f"{point.against} {point.x:,}")
        points.append(asdict(point))
    return header(plan) | {"limits": asdict(limits), "points": points}


def header(plan: Plan) -> dict:
    """What any figure depends on: model, plan, machine."""
    model = f"random weights of {plan.source}" if plan.random else plan.source
    about = {"model": model, "config": asdict(plan.config), "plan": asdict(plan)}
    return about | {"machine": machine_info(plan.device)}


def _temporary_folder() -> tempfile.TemporaryDirectory:
    try:
        return tempfile.TemporaryDirectory(prefix="decoding-llama3-", ignore_cleanup_errors=True)
    except OSError as error:
        raise ValueError(
            f"the benchmark needs a temporary folder, and none can be made ({error}): set TMPDIR to a folder that "
            "can be written"
        ) from error


def _save_random(plan: Plan, folder: Path) -> str:
    config, dtype = plan.config, plan.torch_dtype
    needed, free = config.n_params * dtype.itemsize, shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise ValueError(
            f"the random weights of {plan.source} take {needed / 1e9:.1f} GB of disk, but {folder.parent} has "
            f"{free / 1e9:.1f} GB free: set TMPDIR to a larger disk, or leave out the comparison, which needs it"
        )
    save_huggingface(random_model(config, "cpu", dtype), folder / "weights")
    return str(folder / "weights")
