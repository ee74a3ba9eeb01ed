"""Check and measure this package on one NVIDIA card, in nine minutes: `python benchmarks/gpu.py [--json FILE]`.

First the tests of tests/gpu, then an 8B of random weights in this package and in transformers: what share of the
card's limits prompts and tokens reach, peak memory, the time to compile. All goes into one JSON file, which is
written anew after each part, so that a stop loses nothing. Every part has a share of the time that is left.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
try:
    import torch
    from rich.console import Console

    from decoding_llama3.benchmark.huggingface import BASELINES, check_transformers
    from decoding_llama3.benchmark.measure import FORMULAS
    from decoding_llama3.benchmark.plan import ENGINES, Plan
    from decoding_llama3.benchmark.processes import run_in_fresh_process
    from decoding_llama3.benchmark.results import common_tokens, medians, ratios
    from decoding_llama3.benchmark.runs import header
    from decoding_llama3.benchmark.tables import engine_tables
    from decoding_llama3.inference.devices import choose_dtype
    from decoding_llama3.inference.memory import check_memory
except ImportError as error:
    sys.exit(f"{error.name} is not installed: run 'pip install -e .' in {ROOT} first")

OLDEST_TORCH = (2, 11)
SECONDS = 530.0  # nine minutes, less ten seconds to start and to end
SHORTEST = 45.0  # a part with fewer seconds than these is left out
TESTS = ROOT / "tests" / "gpu"
Report = Callable[[str], None]


def gpu_plan(
    source: str = "8b",
    device: str = "cuda",
    engines: Sequence[str] = ("compiled", "int8", "huggingface-compiled"),
    prompts: Sequence[int] = (128, 512, 2048),
    contexts: Sequence[int] = (128, 1024, 4096, 8192),
    new_tokens: int = 64,
) -> Plan:
    """Random weights in the dtype that the card does well, each engine once."""
    dtype, threads = str(choose_dtype(device)).removeprefix("torch."), torch.get_num_threads()
    lengths = {"prompts": tuple(prompts), "contexts": tuple(contexts), "new_tokens": new_tokens}
    return Plan(source, True, device, dtype, tuple(engines), **lengths, runs=1, threads=threads)


def run_parts(
    plan: Plan,
    tests: Path = TESTS,
    seconds: float = SECONDS,
    save: Callable[[dict], None] = lambda result: None,
    report: Report = print,
    now: Callable[[], float] = time.monotonic,
) -> dict:
    """The tests, then each engine of the plan, each in at most its share of `seconds`; `save` after each.

    Parts that could not be done are in "left_out", those that ended too early in "incomplete": a sentence each.
    """
    end, parts = now() + seconds, ["tests", *plan.engines]
    result = header(plan) | {"formulas": FORMULAS, "tests": None, "engines": {}, "left_out": {}, "incomplete": {}}
    save(result)
    for i, part in enumerate(parts):
        share = (end - now()) / (len(parts) - i)
        reason = _why_not(plan, part, tests, share)
        if reason is None:
            report(f"{part}: at most {share:.0f} seconds")
            if part == "tests":
                result["tests"], reason = run_tests(tests, share)
            else:
                figures, reason = _measure(plan, part, share)
                result["engines"] |= {part: figures} if figures else {}
            if reason is not None:
                result["incomplete"][part] = reason
        else:
            result["left_out"][part] = reason
        if reason is not None:
            report(f"{part}: {reason}")
        result = _compared(result)
        save(result)
    return result


def run_tests(folder: Path, seconds: float) -> tuple[dict, str | None]:
    """How many tests passed, failed and were skipped, and the sentence that says why, if not all have passed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "--tb=short", str(folder)]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as stopped:
        printed = stopped.stdout or b""
        return {"output": _tail(printed.decode(errors="replace"))}, f"were ended after {seconds:.0f} seconds"
    counts = dict.fromkeys(("passed", "failed", "skipped", "error"), 0)
    counts |= {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", ended.stdout)}
    found = counts | {"code": ended.returncode, "output": _tail(ended.stdout + ended.stderr)}
    if ended.returncode == 0 and counts["passed"]:
        return found, None
    return found, "{failed} failed, {error} errors, {passed} passed: see their output".format(**counts)


def _why_not(plan: Plan, part: str, tests: Path, share: float) -> str | None:
    """Why a part cannot be done here, None if it can."""
    if share < SHORTEST:
        return f"left out, because {max(share, 0):.0f} seconds are too few for it"
    if part == "tests":
        if importlib.util.find_spec("pytest") is None:
            return "left out, because pytest is not installed: pip install 'decoding-llama3[test]'"
        return None if tests.is_dir() else f"left out, because there is no folder {tests}"
    try:
        if part in BASELINES:
            check_transformers()
        check_memory(plan.config, plan.device, plan.torch_dtype, ENGINES[part].get("quantize"))
    except ValueError as error:
        return f"left out, because {error}"
    return None


def _measure(plan: Plan, engine: str, seconds: float) -> tuple[dict, str | None]:
    with tempfile.TemporaryDirectory(prefix="decoding-llama3-", ignore_cleanup_errors=True) as folder:
        return run_in_fresh_process(plan, engine, Path(folder), seconds)


def _compared(result: dict) -> dict:
    """With what the engines have in common: limits, greedy tokens of our own two, ratios to the baseline."""
    engines = result["engines"]
    if not engines:
        return result
    ours = {name: figures for name, figures in engines.items() if name not in BASELINES}  # of the same weights
    return result | {
        "limits": medians([figures["limits"] for figures in engines.values()]),
        "same_greedy_tokens": {name: common_tokens(ours, name) for name in ours},
        "ratios": ratios(engines),
    }


def _tail(text: str) -> str:
    return text[-6000:]


def check_versions() -> None:
    """Raise ValueError where torch is too old, or sees no card."""
    found = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if found < OLDEST_TORCH:
        wanted = ".".join(map(str, OLDEST_TORCH))
        raise ValueError(f"torch {torch.__version__} is installed, and {wanted} or newer is needed")
    if not torch.cuda.is_available():
        raise ValueError("torch sees no NVIDIA card here: take a machine with one, and a CUDA build of torch")


def check_json_file(path: Path) -> None:
    """Raise ValueError, before anything is measured, where the result could not be written."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise ValueError(f"--json {path} cannot be written: {os.strerror(error.errno).lower()}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every part was done and all tests passed, 1 if not, 2 where nothing can be measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="where all figures go: gpu.json")
    path = parser.parse_args(arguments).json
    try:
        check_versions()
        check_json_file(path)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def save(result: dict) -> None:
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)

    result = run_parts(gpu_plan(), save=save)
    if result["engines"]:
        for table in engine_tables(result):
            Console(soft_wrap=True).print(table)
    print(f"all figures are in {path}")
    return 1 if result["left_out"] or result["incomplete"] else 0


if __name__ == "__main__":
    sys.exit(main())
