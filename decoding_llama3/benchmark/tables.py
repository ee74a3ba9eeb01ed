"""What the benchmark found, as tables for a terminal."""

from collections.abc import Iterator

from rich.table import Table

from decoding_llama3.benchmark.measure import FORMULAS


def engine_tables(result: dict) -> Iterator[Table | str]:
    """Of `runs.run_engines`: a row per engine, the machine's limits, and with baselines the ratios.

    A figure that an engine has not got is left blank.
    """
    plan, engines = result["plan"], result["engines"]
    n, runs = plan.get("processes", 1), plan["runs"]
    how = f"fresh processes ({runs} each)" if n == 1 else f"{runs} runs in {n} processes that share the model"
    yield f"{describe(result)}; batch 1, medians of {how}"
    titles = ["engine", "load\ns", "first\ntoken\ns"]
    titles += [f"prefill\n{n}\ntok/s" for n in plan["prompts"]]
    titles += [f"decode\n{n}\ntok/s" for n in plan["contexts"]]
    table = Table(*titles, "peak\nGB", "compile\ns", "same\ntokens", box=None, padding=(0, 1, 0, 0))
    for name, figures in engines.items():
        table.add_row(name, *_cells(figures, plan), _common(result, name))
    yield table
    yield f"percentages are of the limit; decode: {FORMULAS['decode']}; prefill: {FORMULAS['prefill']}"
    yield limits_line(result["limits"])
    for name, ratios in result["ratios"].items():
        times = ", ".join(f"{what} {ratio:.2f}" for what, ratio in ratios.items())
        yield f"speed of {name} / speed of the fastest Hugging Face engine: {times}"


def ladder_tables(result: dict) -> Iterator[Table | str]:
    """Of `runs.run_ladder`: a row per stage."""
    yield f"{describe(result)}; one token after {result['context']:,} others, batch 1"
    table = Table("stage", "predicted, ms", "bound by", "measured, ms", box=None)
    for stage in result["rungs"]:
        predicted, measured = (f"{1000 * stage[f'{what}_seconds']:.3g}" for what in ("predicted", "measured"))
        table.add_row(stage["name"], predicted, stage["bound_by"], measured)
    yield table
    yield limits_line(result["limits"])


def scaling_tables(result: dict) -> Iterator[Table | str]:
    """Of `runs.run_scaling`: a row per point."""
    yield f"{describe(result)}; batch 1"
    table = Table("against", "at", "predicted", "measured", "unit", box=None)
    for point in result["points"]:
        form = "{:,}" if point["unit"] == "bytes" else "{:,.4g}"
        predicted, measured = (form.format(point[what]) for what in ("predicted", "measured"))
        table.add_row(point["against"], f"{point['x']:,}", predicted, measured, point["unit"])
    yield table
    yield limits_line(result["limits"])


def describe(result: dict) -> str:
    """Model, dtype, device, threads: what a speed means nothing without."""
    machine, plan = result["machine"], result["plan"]
    where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    return (
        f"{result['model']}, {plan['dtype']} on {where}, threads: {machine['threads']}, torch {machine['torch']}"
    )


def limits_line(limits: dict) -> str:
    """The machine's limits in words."""
    return (
        f"limits of this machine: reads {limits['read_bytes_per_s'] / 1e9:,.1f} GB/s ({limits['read_by']}), "
        f"copies {limits['copy_bytes_per_s'] / 1e9:,.1f} GB/s (read + written), multiplies matrices at "
        f"{limits['flops_per_s'] / 1e12:,.3g} TFLOP/s"
    )


def _cells(figures: dict, plan: dict) -> Iterator[str]:
    yield f"{figures['load']:.2f}"
    yield f"{figures['first_token']:.3f}"
    for what, lengths in (("prefill", plan["prompts"]), ("decode", plan["contexts"])):
        for n in lengths:
            speed = figures[what].get(str(n))
            yield "" if speed is None else f"{speed['tokens_per_s']:,.4g}\n{speed['fraction']:.0%}"
    yield f"{(figures['peak']['device'] or figures['peak']['host']) / 1e9:.2f}"
    yield "" if figures["compile"] is None else f"{figures['compile']:.1f}"


def _common(result: dict, name: str) -> str:
    same = result["same_greedy_tokens"].get(name)
    return "" if same is None else f"{same}/{len(result['engines'][name]['greedy'])}"
