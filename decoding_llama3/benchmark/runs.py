"""The benchmark as a whole: every engine in a fresh process, in turn, several times; medians of all.

In one process the second engine would find memory and compiler warm; one after the other, a machine that slows
down would punish the last. `python -m decoding_llama3 bench` is the command for this file.
"""

import dataclasses
import importlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from decoding_llama3.benchmark.huggingface import check_transformers, huggingface_engine, import_transformers
from decoding_llama3.benchmark.machine import version
from decoding_llama3.benchmark.measure import (
    FORMULAS,
    Engine,
    fitting,
    forget_host_peak,
    growth,
    host_peak_bytes,
    lacks_compiler,
    mean_limits,
    measure,
    measure_limits,
    now,
    our_engine,
    preset_config,
    random_model,
    room,
    speed_ladder,
    with_speeds,
)
from decoding_llama3.config import LlamaConfig
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.checkpoint.find import checkpoint_directory, read_config
from decoding_llama3.inference.devices import check_device
from decoding_llama3.inference.load import load_model
from decoding_llama3.transformer import Transformer

OURS = {  # arguments of load_model
    "eager": {},
    "compiled": {"compile": True},
    "int8": {"quantize": "int8", "compile": True},
}
RIVALS = {"huggingface-eager": {"compile": False}, "huggingface-compiled": {"compile": True}}
ENGINES = OURS | RIVALS


@dataclass(frozen=True)
class Plan:
    """What to measure: a checkpoint's directory, "tiny", or random weights of a preset's shape."""

    source: str
    random: bool
    device: str
    dtype: str
    engines: tuple[str, ...]
    prompts: tuple[int, ...]
    contexts: tuple[int, ...]
    new_tokens: int
    runs: int
    threads: int

    @property
    def config(self) -> LlamaConfig:
        return preset_config(self.source) if self.random else read_config(self.source)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def load(self) -> Callable[..., Transformer]:
        """The model of this package, given `quantize` and `compile`."""
        return partial(_load, self.source, self.random, self.device, self.torch_dtype)


def make_plan(
    source: str = "tiny",
    random: bool = False,
    engines: Sequence[str] = tuple(OURS),
    against: str | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    prompts: Sequence[int] = (128, 512, 2048),
    contexts: Sequence[int] = (128, 1024, 4096),
    new_tokens: int = 64,
    runs: int = 3,
    tell: Callable[[str], None] = print,
) -> Plan:
    """A checked plan. What does not fit the model or the machine is left out and told; nothing left raises."""
    check_device(device)
    config = preset_config(source) if random else read_config(source)
    names = _choose_engines(engines, against, device, tell)
    if against is not None and not random and not (checkpoint_directory(source) / "config.json").is_file():
        raise ValueError(f"{source} is in Meta's layout, which transformers cannot read: leave out the comparison")
    if new_tokens < 1 or runs < 1:
        raise ValueError(f"new tokens and runs must be 1 or more, found {new_tokens} and {runs}")
    return Plan(
        source,
        random,
        device,
        str(dtype).removeprefix("torch."),
        names,
        _choose_lengths("prompts", prompts, config.max_seq_len, tell),
        _choose_lengths("contexts", contexts, room(config, new_tokens), tell),
        new_tokens,
        runs,
        torch.get_num_threads(),
    )


def run(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> dict:
    """Measure every engine of `plan` and report: the medians, and the figures of each round.

    With rivals, random weights are saved once, and all engines read them. Without, each makes its own, which for
    int8 are others. The temporary directory with weights, compiled code and results is gone afterwards, whatever
    happens.
    """
    rounds = []
    with tempfile.TemporaryDirectory(prefix="decoding-llama3-", ignore_cleanup_errors=True) as folder:
        read = plan
        if plan.random and any(name in RIVALS for name in plan.engines):
            tell(f"random weights of {plan.source}")
            read = dataclasses.replace(plan, source=_save_random(plan, Path(folder)), random=False)
        for number in range(1, plan.runs + 1):
            for name in plan.engines:
                tell(f"round {number} of {plan.runs}: {name}")
                figures = _in_fresh_process(read, name, Path(folder))
                rounds.append({"round": number, "engine": name, "figures": figures})
    engines = {n: medians([r["figures"] for r in rounds if r["engine"] == n]) for n in plan.engines}
    return _header(plan) | {
        "formulas": FORMULAS,
        "limits": medians([r["figures"]["limits"] for r in rounds]),
        "engines": engines,
        "same_greedy_tokens": {name: _agreement(engines, name) for name in engines},
        "ratios": ratios(engines),
        "rounds": rounds,
    }


def run_ladder(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> dict:
    """`speed_ladder` at the shortest of the plan's contexts, in this process, with all that it depends on."""
    tell("the machine's limits")
    limits = measure_limits(plan.config, plan.device, plan.torch_dtype)
    rungs = speed_ladder(plan.load, plan.contexts[0], plan.new_tokens, limits, tell)
    found = {"context": plan.contexts[0], "limits": asdict(limits), "rungs": [asdict(rung) for rung in rungs]}
    return _header(plan) | found


def run_growth(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> dict:
    """`growth` at the plan's lengths, compiled if that is one of its engines, with all that it depends on."""
    tell("the machine's limits")
    limits = measure_limits(plan.config, plan.device, plan.torch_dtype)
    points, model = [], plan.load(compile="compiled" in plan.engines)
    for point in growth(model, plan.contexts, None, plan.prompts, plan.new_tokens, limits):
        tell(f"{point.against} {point.x:,}")
        points.append(asdict(point))
    return _header(plan) | {"limits": asdict(limits), "points": points}


def run_engine(plan: Plan, name: str) -> dict:
    """All figures of one engine, in this process: limits, load, memory, speeds, limits again.

    Seconds, bytes, tokens a second; the fractions are of the mean of both limits.
    """
    torch.set_num_threads(plan.threads)
    config = plan.config
    before = measure_limits(config, plan.device, plan.torch_dtype)
    if plan.device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(plan.device)
    importlib.import_module("torch._dynamo")  # the first torch.compile would: no import is to be timed
    if name in RIVALS:
        import_transformers()
    forget_host_peak()
    start = now(plan.device)
    engine = _load_engine(plan, name)
    loading, loaded = now(plan.device) - start, _peaks(plan.device)
    seconds = measure(engine, config, plan.device, plan.prompts, plan.contexts, plan.new_tokens)
    at_end = _peaks(plan.device)
    after = measure_limits(config, plan.device, plan.torch_dtype)
    limits = mean_limits(before, after)
    return {
        "load": loading,
        "peak_after_load": loaded,
        "peak": at_end,
        "weight_bytes": engine.weight_bytes,
        **with_speeds(seconds, engine, config, plan.torch_dtype, limits),
        "compile": seconds["first_step"] if ENGINES[name].get("compile") else None,
        "limits": asdict(limits),
        "limits_before": asdict(before),
        "limits_after": asdict(after),
    }


def medians(rounds: list):
    """Figures of the same form as each round's: the median of every number, the first of all else."""
    first = rounds[0]
    if isinstance(first, dict):
        return {key: medians([figures[key] for figures in rounds]) for key in first}
    return statistics.median(rounds) if isinstance(first, (int, float)) else first


def ratios(engines: dict) -> dict[str, dict[str, float]]:
    """How many times as fast each engine of ours is as the best rival, by what is measured; {} without rivals."""
    speeds = {name: _speeds(figures) for name, figures in engines.items()}
    rivals = [speeds[name] for name in RIVALS if name in speeds]
    if not rivals:
        return {}
    best = {what: max(rival[what] for rival in rivals) for what in rivals[0]}
    return {name: {what: speeds[name][what] / best[what] for what in best} for name in OURS if name in speeds}


def machine(device: str) -> dict:
    """What a figure depends on beside the model: device, processor, threads, versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def _header(plan: Plan) -> dict:
    model = f"random weights of {plan.source}" if plan.random else plan.source
    about = {"model": model, "config": asdict(plan.config), "plan": asdict(plan)}
    return about | {"machine": machine(plan.device)}


def _choose_engines(
    engines: Sequence[str], against: str | None, device: str, tell: Callable[[str], None]
) -> tuple[str, ...]:
    if unknown := [name for name in engines if name not in OURS]:
        raise ValueError(f"no engine is called {unknown[0]!r}; there are {', '.join(OURS)}")
    names = list(dict.fromkeys(engines))
    if against is not None:
        rivals = [name for name in RIVALS if against in ("huggingface", name)]
        if not rivals:
            known = ", ".join(["huggingface (both)", *RIVALS])
            raise ValueError(f"no rival is called {against!r}; there are {known}")
        check_transformers()
        names += rivals
    if lacks_compiler(device):
        for name in [name for name in names if ENGINES[name].get("compile")]:
            tell(f"{name} is left out: it needs a C++ compiler, g++ or clang")
            names.remove(name)
    if not names:
        raise ValueError("no engine is left to measure: install g++ or clang, or take the engine 'eager'")
    return tuple(names)


def _choose_lengths(
    what: str, lengths: Sequence[int], longest: int, tell: Callable[[str], None]
) -> tuple[int, ...]:
    if wrong := [n for n in lengths if n < 1]:
        raise ValueError(f"{what} have 1 token or more, found {wrong[0]}")
    kept = fitting(lengths, longest)
    if not kept:
        raise ValueError(f"none of the {what} {', '.join(map(str, lengths))} fits: take {longest} tokens or fewer")
    if dropped := sorted(set(lengths) - set(kept)):
        tell(f"{what} of {', '.join(map(str, dropped))} tokens are left out: {longest} fit this model")
    return kept


def _load(
    source: str,
    random: bool,
    device: str,
    dtype: torch.dtype,
    quantize: str | None = None,
    compile: bool = False,
) -> Transformer:
    if random:
        return random_model(preset_config(source), device, dtype, quantize, compile)
    return load_model(source, device, dtype, quantize, compile)


def _load_engine(plan: Plan, name: str) -> Engine:
    if name in OURS:
        return our_engine(plan.load(**OURS[name]))
    path = checkpoint_directory(plan.source)
    return huggingface_engine(path, plan.device, plan.torch_dtype, **RIVALS[name])


def _peaks(device: str) -> dict[str, int | None]:
    return {
        "host": host_peak_bytes(),
        "device": torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None,
    }


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


def _in_fresh_process(plan: Plan, name: str, folder: Path) -> dict:
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as own:
        job, result = Path(own) / "job.json", Path(own) / "result.json"
        job.write_text(json.dumps({"plan": asdict(plan), "engine": name}), encoding="utf-8")
        # An empty cache for compiled code: else the second round would only look up what the first compiled.
        caches = {"TORCHINDUCTOR_CACHE_DIR": f"{own}/inductor", "TRITON_CACHE_DIR": f"{own}/triton", "TMPDIR": own}
        command = [sys.executable, "-m", __spec__.name, str(job), str(result)]
        ended = subprocess.run(command, env=os.environ | caches, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if not result.is_file():
            raise ValueError(f"the process of {name} {_how_it_ended(ended)}")
        figures = json.loads(result.read_text(encoding="utf-8"))
    if "error" in figures:
        raise ValueError(figures["error"])
    return figures


def _how_it_ended(ended: subprocess.CompletedProcess) -> str:
    if ended.returncode == -9:
        return "was killed by the system, which is what happens when memory runs out: take a smaller model"
    lines = ended.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
    return f"ended with code {ended.returncode} and without a result: {lines[-1].strip()}"


def _work(job: Path, result: Path) -> None:
    """What the fresh process does: a plan and an engine's name in, figures or the sentence of an error out."""
    given = json.loads(job.read_text(encoding="utf-8"))
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in given["plan"].items()}
    try:
        figures = run_engine(Plan(**fields), given["engine"])
    except ValueError as error:
        figures = {"error": str(error)}
    except Exception as error:  # of torch, of a compiler, of transformers: all end as one sentence
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        figures = {"error": f"the engine {given['engine']} failed: {type(error).__name__}: {reason}"}
    result.write_text(json.dumps(figures), encoding="utf-8")


def _agreement(engines: dict, name: str) -> int:
    """How many greedy tokens `name` has in common with the first engine, from the first on."""
    first = next(iter(engines.values()))["greedy"]
    pairs = zip(first, engines[name]["greedy"], strict=True)
    return next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(first))


def _speeds(figures: dict) -> dict[str, float]:
    speeds = {"load": 1 / figures["load"], "first token": 1 / figures["first_token"]}
    for what in ("prefill", "decode"):
        speeds |= {f"{what} {n}": speed["tokens_per_s"] for n, speed in figures[what].items()}
    return speeds


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file() and (found := re.search(r"^model name\s*:\s*(.+)$", listed.read_text(), re.MULTILINE)):
        return found[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    _work(Path(sys.argv[1]), Path(sys.argv[2]))
