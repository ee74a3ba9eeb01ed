"""Medians, ratios and tables of figures that we invent."""

from rich.console import Console

from decoding_llama3.benchmark.results import common_tokens, medians, ratios
from decoding_llama3.benchmark.tables import engine_tables


def figures(load: float, decode: float) -> dict:
    speed = {"7": {"tokens_per_s": decode}}
    return {"load": load, "first_token": 1.0, "prefill": speed, "decode": speed}


def test_medians_are_taken_number_by_number():
    rounds = [{"a": x, "b": {"c": [x], "d": 10 * x}, "e": None, "f": "x"} for x in (3, 1, 9)]
    assert medians(rounds) == {"a": 3, "b": {"c": [3], "d": 30}, "e": None, "f": "x"}


def test_ratios_are_to_the_fastest_baseline_in_each_figure():
    baselines = {"huggingface-eager": figures(2.0, 10.0), "huggingface-compiled": figures(8.0, 40.0)}
    found = ratios({"eager": figures(1.0, 20.0), "int8": figures(4.0, 80.0)} | baselines)
    assert found == {
        "eager": {"load": 2.0, "first token": 1.0, "prefill 7": 0.5, "decode 7": 0.5},
        "int8": {"load": 0.5, "first token": 1.0, "prefill 7": 2.0, "decode 7": 2.0},
    }
    assert ratios({"eager": figures(1.0, 20.0)}) == {}


def test_ratios_of_what_one_of_the_two_has_not_measured_are_left_out():
    ours, baseline = figures(1.0, 20.0), figures(1.0, 10.0)
    ours["decode"] = {"9": {"tokens_per_s": 5.0}}
    found = ratios({"eager": ours, "huggingface-eager": baseline})
    assert found == {"eager": {"load": 1.0, "first token": 1.0, "prefill 7": 2.0}}


def test_common_tokens_end_at_the_first_that_differs():
    engines = {name: {"greedy": greedy} for name, greedy in {"a": [1, 2, 3, 4], "b": [1, 2, 9, 4]}.items()}
    assert (common_tokens(engines, "a"), common_tokens(engines, "b")) == (4, 2)


def test_a_figure_that_an_engine_has_not_got_stays_blank_in_its_column():
    """Speeds after 128 and 1,024 tokens; the second engine was stopped before it had any but the prompt's."""
    speed = {"tokens_per_s": 1111.0, "fraction": 0.5}
    whole = {
        "load": 1.0,
        "first_token": 1.0,
        "peak": {"device": None, "host": 10**9},
        "compile": None,
        "greedy": [1],
    }
    engines = {
        "eager": whole
        | {"prefill": {"64": speed}, "decode": {"128": speed, "1024": speed | {"tokens_per_s": 7.0}}},
        "int8": whole | {"prefill": {"64": speed}, "decode": {}},
    }
    result = {
        "model": "tiny",
        "machine": {"device": "cpu", "processor": "invented", "threads": 2, "torch": "2"},
        "plan": {"dtype": "float32", "runs": 1, "prompts": [64], "contexts": [128, 1024]},
        "engines": engines,
        "same_greedy_tokens": {"eager": 1},
        "ratios": {},
        "limits": {"read_bytes_per_s": 1e9, "read_by": "sum", "copy_bytes_per_s": 1e9, "flops_per_s": 1e12},
    }
    console = Console(width=200)
    with console.capture() as captured:
        for part in engine_tables(result):
            console.print(part)
    lines = captured.get().splitlines()
    (eager,), (int8,) = ([line for line in lines if line.startswith(name)] for name in ("eager", "int8"))
    assert eager.split() == ["eager", "1.00", "1.000", "1,111", "1,111", "7", "1.00", "1/1"]
    assert int8.split() == ["int8", "1.00", "1.000", "1,111", "1.00"]
    assert int8.index("1.00", 20) == eager.index("1.00", 30)  # in the column of the peak
