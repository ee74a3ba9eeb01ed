"""`bench`: how fast a model runs on this machine."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from decoding_llama3.cli.files import check_output_file, write_result
from decoding_llama3.cli.models import dtype_of
from decoding_llama3.cli.options import CHECKPOINT, Device, Dtype
from decoding_llama3.cli.several import is_alone, is_first
from decoding_llama3.cli.terminal import console, note, waiting

# Said here as well as in `benchmark`, because that imports torch.
SHAPES = ("125m", "1.5b", "8b")
ENGINES = ("eager", "compiled", "int8")
BASELINES = ("huggingface-eager", "huggingface-compiled")
MODEL, WAYS, LENGTHS, RESULT = "The model", "The ways to run it", "What is measured", "What comes out"
HELP = """Measure load, first token, prefill and decode, also as fractions of what the machine can do.

Decode: (bytes of the weights + bytes of the cache at that context) / seconds per token / read bandwidth.

Prefill: FLOPs of the prompt / its seconds / matrix-product rate.

Both limits are measured before and after each engine, which runs in a process of its own."""


def _option(text: str, panel: str, *names: str, **rest):
    return typer.Option(*names, help=text, rich_help_panel=panel, **rest)


def bench(
    checkpoint: Annotated[str | None, typer.Argument(help=f"{CHECKPOINT} Default: tiny.")] = None,
    random: Annotated[str | None, _option(f"Random weights of a preset, or {', '.join(SHAPES)}.", MODEL)] = None,
    engines: Annotated[str, _option("Ways to run the model, in turn.", WAYS)] = ",".join(ENGINES),
    against: Annotated[str | None, _option(f"huggingface, or one of {', '.join(BASELINES)}.", WAYS)] = None,
    device: Device = None,
    dtype: Dtype = None,
    runs: Annotated[int, _option("Fresh processes of each engine.", LENGTHS, min=1)] = 3,
    new_tokens: Annotated[int, _option("Steps after each context.", LENGTHS, min=1)] = 64,
    prompts: Annotated[str | None, _option("Lengths; default: 128,512,2048.", LENGTHS)] = None,
    contexts: Annotated[str | None, _option("Lengths; default: 128,1024,4096.", LENGTHS)] = None,
    ladder: Annotated[bool, _option("A token with no cache, cached, ... int8.", RESULT, "--ladder")] = False,
    scaling: Annotated[bool, _option("Against context, depth and prompt.", RESULT, "--scaling")] = False,
    json_file: Annotated[Path | None, _option("Where all figures go.", RESULT, "--json")] = None,
) -> None:
    if json_file is not None and is_first():
        check_output_file("--json", json_file)
    if not is_alone() and (ladder or scaling):
        raise ValueError("found --ladder or --scaling in several processes: run them in one")
    if ladder and scaling:
        raise ValueError("found --ladder and --scaling: give one of the two")
    if checkpoint is not None and random is not None:
        raise ValueError(f"found a checkpoint ({checkpoint}) and --random {random}: give one of the two")
    lengths = {"prompts": _numbers("prompts", prompts), "contexts": _numbers("contexts", contexts)}
    with waiting("starting") as report:
        run, tables, default = _kind(ladder, scaling)
        lengths = {what: found or default for what, found in lengths.items() if found or default}
        how = {"against": against, "new_tokens": new_tokens, "runs": runs} | lengths
        source = "tiny" if checkpoint is None else checkpoint
        plan = _plan(source if random is None else random, random is not None, engines, device, dtype, how)
        result = run(plan, report)
    out = console()
    for part in tables(result):
        out.print(part)
    if json_file is not None and is_first():
        result["command"] = shlex.join([*_started(), *sys.argv[1:]])
        write_result(json_file, json.dumps(result, indent=2) + "\n")
        note(f"all figures lie in {json_file}")


bench.__doc__ = HELP


def _kind(ladder: bool, scaling: bool) -> tuple[Callable, Callable, tuple[int, ...] | None]:
    """What runs, what makes tables of it, and the lengths that it takes where none are given."""
    from decoding_llama3.benchmark import runs, tables
    from decoding_llama3.benchmark.scaling import SCALING_LENGTHS

    if ladder:
        return runs.run_ladder, tables.ladder_tables, None
    if scaling:
        return runs.run_scaling, tables.scaling_tables, SCALING_LENGTHS
    return runs.run_engines, tables.engine_tables, None


def _plan(source: str, random: bool, engines: str, device: str | None, dtype: str | None, how: dict):
    from decoding_llama3.benchmark.plan import make_plan
    from decoding_llama3.inference.devices import best_device

    names = engines.replace(" ", "").split(",")
    if is_alone():
        device = device or best_device()
    else:
        device, names = _meet(source, random, device), ["eager"] if engines == ",".join(ENGINES) else names
    return make_plan(source, random, names, device=device, dtype=dtype_of(dtype, device), report=note, **how)


def _started() -> list[str]:
    if is_alone():
        return ["decoding-llama3"]
    return ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], "-m", "decoding_llama3"]


def _meet(source: str, random: bool, device: str | None) -> str:
    """The device of one of several processes; a model that they cannot share is refused before they meet."""
    from decoding_llama3.benchmark.models import preset_config
    from decoding_llama3.inference.checkpoint.find import read_config
    from decoding_llama3.inference.parallel import meet, narrow_config
    from decoding_llama3.inference.ranks import find_ranks

    narrow_config(preset_config(source) if random else read_config(source), find_ranks())
    return meet(device)


def _numbers(what: str, text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"--{what} are whole numbers with commas between, as 128,512, found {text!r}") from None
