"""What the benchmark found, as tables for a terminal."""

from collections.abc import Iterator

from rich.table import Table

from decoding_llama3.benchmark.measure import FORMULAS


def benchmark_tables(result: dict) -> Iterator[Table | str]:
    """Of `benchmark_runs.run`: an engine a row, the machine's limits, and with rivals the ratios."""
    plan, engines = result["plan"], result["engines"]
    yield f"{about(result)}; batch 1, medians of fresh processes ({plan['runs']} each)"
    titles = ["engine", "load\ns", "first\ntoken\ns"]
    titles += [f"prefill\n{n}\ntok/s" for n in plan["prompts"]]
    titles += [f"decode\n{n}\ntok/s" for n in plan["contexts"]]
    table = Table(*titles, "peak\nGB", "compile\ns", "same\ntokens", box=None, padding=(0, 1, 0, 0))
    for name, figures in engines.items():
        speeds = [*figures["prefill"].values(), *figures["decode"].values()]
        peak = figures["peak"]["device"] or figures["peak"]["host"]
        same = f"{result['same_greedy_tokens'][name]}/{len(figures['greedy'])}"
        table.add_row(
            name,
            f"{figures['load']:.2f}",
            f"{figures['first_token']:.3f}",
            *(f"{speed['tokens_per_s']:,.4g}\n{speed['fraction']:.0%}" for speed in speeds),
            f"{peak / 1e9:.2f}",
            "" if figures["compile"] is None else f"{figures['compile']:.1f}",
            same,
        )
    yield table
    if plan["random"] and "int8" in engines and not result["ratios"]:
        yield "int8 has random weights of its own: its tokens are not to be those of the others"
    yield f"per cent, of the limit - decode: {FORMULAS['decode']}; prefill: {FORMULAS['prefill']}"
    yield limits_line(result["limits"])
    for name, ratios in result["ratios"].items():
        times = ", ".join(f"{what} {ratio:.2f}" for what, ratio in ratios.items())
        yield f"{name} is as many times as fast as the better Hugging Face: {times}"


def ladder_tables(result: dict) -> Iterator[Table | str]:
    """Of `benchmark_runs.run_ladder`: a rung a row."""
    yield f"{about(result)}; a token after {result['context']:,} others, batch 1"
    table = Table("rung", "predicted, ms", "bound by", "measured, ms", box=None)
    for rung in result["rungs"]:
        predicted, measured = (f"{1000 * rung[f'{what}_seconds']:.3g}" for what in ("predicted", "measured"))
        table.add_row(rung["name"], predicted, rung["bound_by"], measured)
    yield table
    yield limits_line(result["limits"])


def growth_tables(result: dict) -> Iterator[Table | str]:
    """Of `benchmark_runs.run_growth`: a point a row."""
    yield f"{about(result)}; batch 1"
    table = Table("against", "at", "predicted", "measured", "unit", box=None)
    for point in result["points"]:
        predicted, measured = (f"{point[what]:,.4g}" for what in ("predicted", "measured"))
        if point["unit"] == "bytes":
            predicted, measured = (f"{point[what]:,}" for what in ("predicted", "measured"))
        table.add_row(point["against"], f"{point['x']:,}", predicted, measured, point["unit"])
    yield table
    yield limits_line(result["limits"])


def about(result: dict) -> str:
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
