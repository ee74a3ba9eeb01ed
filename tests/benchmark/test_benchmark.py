"""The benchmark: what it counts, against counts made otherwise; what it times, against a clock we move."""

import dataclasses
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import randomize, shrink
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.benchmark import huggingface, runs
from decoding_llama3.benchmark import measure as measuring
from decoding_llama3.benchmark.huggingface import huggingface_engine
from decoding_llama3.benchmark.measure import (
    Engine,
    Limits,
    Work,
    count_flops,
    decode_work,
    growth,
    make_prompt,
    measure,
    measure_limits,
    our_engine,
    preset_config,
    random_model,
    read_bytes,
    read_greedily,
    speed_ladder,
    tensor_bytes,
    with_speeds,
)
from decoding_llama3.benchmark.runs import make_plan, medians, ratios, run
from decoding_llama3.cli.commands import app
from decoding_llama3.inference import memory
from decoding_llama3.inference.checkpoint.export import save_huggingface

LIMITS = Limits(read_bytes_per_s=1e9, read_by="sum", copy_bytes_per_s=1e9, flops_per_s=1e12)


class Clock:
    """Stands still unless it is moved."""

    def __init__(self, monkeypatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(measuring, "now", lambda device: self.seconds)

    def move(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def uncompiled(monkeypatch):
    """torch.compile that returns what it is given: these tests are not of the compiler."""
    monkeypatch.setattr(torch, "compile", lambda function=None, **how: function or (lambda given: given))


def weights_in(folder) -> dict[str, int]:
    """Bytes of each tensor, by the header of the file."""
    with open(folder / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    offsets = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: end - start for name, (start, end) in offsets.items()}


@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])  # untied, tied
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_reads_every_weight_of_the_file_but_an_embedding_that_is_no_output(preset, dtype, tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink(preset))), tmp_path, dtype)
    stored = weights_in(tmp_path)
    expected = sum(stored.values())
    if preset == "llama3-8b":
        expected -= stored["model.embed_tokens.weight"]
    assert read_bytes(dl.load_model(tmp_path, dtype=dtype)) == expected
    assert huggingface_engine(tmp_path, "cpu", dtype, compile=False).weight_bytes == expected


@pytest.mark.parametrize("tied", [True, False])
def test_int8_weights_are_counted_in_int8_with_their_scales(tied):
    config = dataclasses.replace(shrink("llama3-8b"), tie_embeddings=tied)
    model = random_model(config, dtype=torch.bfloat16, quantize="int8")
    dim, kv, hidden, vocab = 192, 48, 176, 320  # of the shrunk 8B
    layer = 2 * dim * dim + 2 * kv * dim + 3 * hidden * dim  # bytes
    layer += 2 * (2 * dim + 2 * kv + 2 * hidden + dim)  # a scale of two bytes for each row
    layer += 2 * 2 * dim  # norms
    assert read_bytes(model) == 2 * layer + 2 * dim + vocab * dim + 2 * vocab


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_the_operations_of_a_prompt_are_those_that_torch_counts_and_the_causal_half(model, tokens):
    config = model.config
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.output(model.hidden(torch.zeros(1, tokens, dtype=torch.int64))[:, -1])
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    seen = sum(1 for token in range(tokens) for other in range(tokens) if other <= token)
    attention = 2 * 2 * config.n_layers * config.n_heads * config.head_dim * seen  # scores and values
    assert count_flops(config, tokens) == products + attention


def test_the_operations_of_a_prompt_are_those_of_its_two_halves():
    config = preset_config("125m")
    output = 2 * config.dim * config.vocab_size  # asked for once, not twice
    halves = count_flops(config, 300) + count_flops(config, 212, before=300)
    assert halves - output == count_flops(config, 512)


def test_a_token_of_the_8b_reads_15_gigabytes_and_the_cache():
    """131,072 bytes of cache a token; an embedding of 128,256 x 4,096; all in bfloat16."""
    config = dl.LlamaConfig.from_preset("llama3-8b")
    with torch.device("meta"):
        weights = read_bytes(dl.Transformer(config).to(torch.bfloat16))
    assert weights == 2 * (8_030_261_248 - 128_256 * 4096)
    assert decode_work(config, weights, 1000, torch.bfloat16).n_bytes == weights + 131_072_000


def test_the_slower_of_reading_and_computing_is_predicted():
    assert Work(3 * 10**9, 10**12).seconds(LIMITS) == 3.0
    assert Work(3 * 10**9, 10**12).bound_by(LIMITS) == "memory"
    assert Work(10**9, 5 * 10**12).seconds(LIMITS) == 5.0
    assert Work(10**9, 5 * 10**12).bound_by(LIMITS) == "arithmetic"


def test_limits_are_work_over_time(monkeypatch, model):
    """Every call takes 10 ms on this clock, so a row of two (20 ms are wanted) is taken for 5 ms a call."""
    monkeypatch.setattr(measuring, "timed", lambda call, device: 0.01)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda *tensors: None)
    monkeypatch.setattr(measuring, "F", type("F", (), {"linear": lambda *tensors: None}))
    limits = measure_limits(model.config, "cpu", torch.float32, n_bytes=2**20)
    assert limits.read_bytes_per_s == pytest.approx(2**20 / 0.005)
    assert limits.copy_bytes_per_s == pytest.approx(2 * 2**20 / 0.005)
    weights = 2 * 192 * 192 + 2 * 48 * 192 + 3 * 176 * 192
    assert limits.flops_per_s == pytest.approx(2 * 512 * weights / (7 * 0.005))


def test_the_fastest_reduction_is_the_limit_and_named(monkeypatch, model):
    took = {"sum": 0.03, "dot": 0.02, "mv": 0.04}
    monkeypatch.setattr(
        measuring, "_best_seconds", lambda call, device: took[getattr(call, "func", call).__name__.strip("_")]
    )
    monkeypatch.setitem(took, "copy", 1.0)
    monkeypatch.setattr(measuring, "_product_rate", lambda *given: 1.0)
    limits = measure_limits(model.config, "cpu", torch.float32, n_bytes=2**20)
    assert (limits.read_by, limits.read_bytes_per_s) == ("dot product", pytest.approx(2**20 / 0.02))


class Slow:
    """Takes two seconds a token of a prompt, and for single tokens what it is told."""

    def __init__(self, clock: Clock, steps: list[float]) -> None:
        self.clock, self.steps = clock, iter(steps)

    def read(self, tokens):
        self.clock.move(2.0 * tokens.shape[1] if tokens.shape[1] > 1 else next(self.steps))
        return torch.arange(10.0)


def test_speeds_are_those_of_the_clock_and_fractions_of_the_limits(clock, model):
    """Steps: three to warm up, then 1, 7, 1, 7, 1 seconds; their median is 1, their mean is not."""
    started = []

    def start(context, more):
        started.append((context, more))
        return Slow(clock, [50.0, 50.0, 50.0, 1.0, 7.0, 1.0, 7.0, 1.0] if context else [30.0] + 63 * [1.0])

    config, engine = model.config, Engine(start, weight_bytes=10_000_000)
    seconds = measure(engine, config, "cpu", (5, 9), (6,), new_tokens=5)
    assert (seconds["first_token"], seconds["first_step"]) == (10.0, 30.0)
    assert seconds["greedy"] == [9] * 64
    assert {(0, 5 + 64), (0, 5), (0, 9), (6, 64)} == set(started)
    found = with_speeds(seconds, engine, config, torch.float32, LIMITS)
    assert {n: speed["tokens_per_s"] for n, speed in found["prefill"].items()} == {"5": 0.5, "9": 0.5}
    assert found["prefill"]["9"]["fraction"] == pytest.approx(count_flops(config, 9) / 18.0 / 1e12)
    assert found["decode"]["6"]["tokens_per_s"] == 1.0
    cache = 6 * 2 * 2 * 48 * 4  # tokens, layers, keys and values, features, bytes
    assert found["decode"]["6"]["fraction"] == pytest.approx((10_000_000 + cache) / 1e9)


def test_a_slow_prompt_is_not_repeated_for_ever(clock):
    calls = []
    median = measuring.median_seconds(lambda: calls.append(clock.move(20.0)), "cpu", repeats=5)
    assert (median, len(calls)) == (20.0, 2)


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("preset", ["llama3-8b", "llama3.2-1b"])
def test_a_random_model_is_made_as_a_loaded_one(preset, quantize, tmp_path, monkeypatch):
    config = shrink(preset)
    save_huggingface(randomize(dl.Transformer(config)), tmp_path)
    loaded = dl.load_model(tmp_path, dtype=torch.float16, quantize=quantize)
    if quantize:
        drawn = measuring._random

        def norms_only(shape, *how):
            assert len(shape) == 1, "a matrix is drawn in a wider dtype"
            return drawn(shape, *how)

        monkeypatch.setattr(measuring, "_random", norms_only)
    made = random_model(config, dtype=torch.float16, quantize=quantize)
    like = {name: (t.shape, t.dtype) for name, t in loaded.state_dict().items()}
    assert {name: (t.shape, t.dtype) for name, t in made.state_dict().items()} == like
    assert tensor_bytes(made) == tensor_bytes(loaded)  # ties too
    logits = made(torch.tensor([[1, 2, 3]]))
    assert logits.isfinite().all()
    assert logits.std() > 0.01
    assert not any(weight.requires_grad for weight in made.parameters())


def test_presets_have_the_parameters_they_are_named_for():
    assert (
        preset_config("125m").n_params
        == 2 * 32_000 * 768 + 12 * (2 * 768 * 768 + 2 * 256 * 768 + 3 * 2048 * 768 + 2 * 768) + 768
    )
    assert preset_config("1.5b").n_params == preset_config("llama3.2-1b").n_params + 128_256 * 2048
    with pytest.raises(ValueError, match="no preset is called '7b'; there are 125m, "):
        preset_config("7b")


def test_a_random_model_that_memory_cannot_hold_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    with pytest.raises(ValueError, match="GiB are free"):
        random_model(shrink("llama3-8b"))


@pytest.fixture
def checkpoint(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3-8b"))), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("compile", [False, True])
def test_ours_and_theirs_say_the_same_after_a_prompt_and_after_a_context(checkpoint, compile, uncompiled):
    """After a context of zeros too: a cache that was cut off or placed elsewhere would change the logits."""
    ours = our_engine(dl.load_model(checkpoint, dtype=torch.float32, compile=compile))
    theirs = huggingface_engine(checkpoint, "cpu", torch.float32, compile)
    prompt = make_prompt(dl.LlamaConfig.from_huggingface(checkpoint / "config.json"), 11, "cpu")
    for _ in range(2):  # twice: their static cache is used again
        texts = [
            [token for token, _ in read_greedily(engine.start(0, 11 + 30), prompt, 30, "cpu")]
            for engine in (ours, theirs)
        ]
        assert texts[0] == texts[1]
        assert len(set(texts[0])) > 5
    one = torch.tensor([[7]])
    readers = [engine.start(300, 8) for engine in (ours, theirs)]
    for _ in range(3):
        torch.testing.assert_close(*(reader.read(one) for reader in readers), rtol=1e-4, atol=1e-4)


def test_their_compiled_step_is_for_single_tokens(checkpoint, monkeypatch):
    seen = []

    def compile(function, **how):
        assert how["fullgraph"]
        return lambda tokens, **rest: seen.append(tokens.shape[1]) or function(tokens, **rest)

    monkeypatch.setattr(torch, "compile", compile)
    reader = huggingface_engine(checkpoint, "cpu", torch.float32, compile=True).start(0, 20)
    for n in (5, 1, 3, 1):
        reader.read(torch.zeros(1, n, dtype=torch.int64))
    assert seen == [1, 1]


def test_medians_are_taken_number_by_number():
    rounds = [{"a": x, "b": {"c": [x], "d": 10 * x}, "e": None, "f": "x"} for x in (3, 1, 9)]
    assert medians(rounds) == {"a": 3, "b": {"c": [3], "d": 30}, "e": None, "f": "x"}


def figures(load: float, decode: float) -> dict:
    speed = {"7": {"tokens_per_s": decode}}
    return {"load": load, "first_token": 1.0, "prefill": speed, "decode": speed}


def test_ratios_are_to_the_best_rival_in_each_figure():
    rivals = {"huggingface-eager": figures(2.0, 10.0), "huggingface-compiled": figures(8.0, 40.0)}
    found = ratios({"eager": figures(1.0, 20.0), "int8": figures(4.0, 80.0)} | rivals)
    assert found == {
        "eager": {"load": 2.0, "first token": 1.0, "prefill 7": 0.5, "decode 7": 0.5},
        "int8": {"load": 0.5, "first token": 1.0, "prefill 7": 2.0, "decode 7": 2.0},
    }
    assert ratios({"eager": figures(1.0, 20.0)}) == {}


def test_lengths_that_do_not_fit_are_left_out_and_told():
    told = []
    plan = make_plan(prompts=(2048, 512, 128), contexts=(128, 446, 445), new_tokens=64, tell=told.append)
    assert (plan.prompts, plan.contexts) == ((128, 512), (128, 445))  # 512 hold 445 + 3 to warm up + 64
    assert told == [
        "prompts of 2048 tokens are left out: 512 fit this model",
        "contexts of 446 tokens are left out: 445 fit this model",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": (600,)}, "none of the prompts 600 fits: take 512 tokens or fewer"),
        ({"contexts": (0,)}, "contexts have 1 token or more, found 0"),
        ({"engines": ("eager", "fast")}, "no engine is called 'fast'; there are eager, compiled, int8"),
        ({"against": "vllm"}, r"no rival is called 'vllm'; there are huggingface \(both\), huggingface-eager"),
        ({"source": "nowhere"}, "no directory nowhere"),
        ({"source": "8b", "random": True}, "no preset is called '8b'"),
        ({"device": "abacus"}, "device 'abacus' cannot be used here"),
        ({"runs": 0}, "new tokens and runs must be 1 or more, found 64 and 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_at_once(options, words):
    with pytest.raises(ValueError, match=words):
        make_plan(**options)


def test_without_a_compiler_only_eager_engines_are_measured(monkeypatch):
    monkeypatch.setattr(measuring, "find_compiler", lambda: None)
    told = []
    assert make_plan(against="huggingface", tell=told.append).engines == ("eager", "huggingface-eager")
    assert "int8 is left out: it needs a C++ compiler, g++ or clang" in told
    with pytest.raises(ValueError, match="no engine is left to measure: install g\\+\\+ or clang"):
        make_plan(engines=("int8",), tell=told.append)


@pytest.mark.parametrize(
    ("found", "words"), [(None, r"pip install 'decoding-llama3\[test\]'"), ("4.57", "5 or newer, found 4.57")]
)
def test_a_comparison_without_transformers_says_how_to_get_it(monkeypatch, found, words):
    def version(package):
        if found is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(huggingface.importlib.metadata, "version", version)
    with pytest.raises(ValueError, match=words):
        make_plan(against="huggingface")


def test_a_checkpoint_of_metas_is_not_given_to_transformers(tmp_path):
    (tmp_path / "params.json").write_text(
        '{"dim": 64, "n_layers": 1, "n_heads": 4, "vocab_size": 99, "multiple_of": 8, "norm_eps": 1e-5}'
    )
    with pytest.raises(ValueError, match="Meta's layout, which transformers cannot read"):
        make_plan(str(tmp_path), against="huggingface", prompts=(8,), contexts=(8,), new_tokens=1)


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A plan of few tokens, and a temporary folder to look into."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    quick = {"prompts": (8,), "contexts": (8,), "new_tokens": 2, "runs": 1, "tell": lambda line: None}
    yield partial(make_plan, **{"engines": ("eager",)} | quick)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_error_of_the_other_process_arrives_as_its_one_sentence(quick, checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model\.safetensors: download the checkpoint again"):
        run(quick(str(checkpoint)))


@pytest.mark.parametrize(
    ("code", "words"), [(-9, "was killed by the system"), (1, "code 1 and without a result: no room")]
)
def test_a_process_that_dies_is_told_in_a_sentence(quick, monkeypatch, code, words):
    def die(command, **how):
        return subprocess.CompletedProcess(command, code, stderr=b"Traceback ...\n no room\n")

    monkeypatch.setattr(subprocess, "run", die)
    with pytest.raises(ValueError, match=f"the process of eager .*{words}"):
        run(quick())


def test_what_is_no_value_error_keeps_its_first_line(monkeypatch, quick, tmp_path):
    def fail(plan, name):
        raise RuntimeError("backend failed\n\nSet TORCH_LOGS for more")

    monkeypatch.setattr(runs, "run_engine", fail)
    job, result = tmp_path / "job.json", tmp_path / "result.json"
    job.write_text(json.dumps({"plan": dataclasses.asdict(quick()), "engine": "eager"}))
    runs._work(job, result)
    assert json.loads(result.read_text()) == {"error": "the engine eager failed: RuntimeError: backend failed"}


def test_the_random_weights_are_gone_after_an_interruption(quick, monkeypatch):
    """The fixture looks whether the folder is empty."""

    def interrupt(command, **how):
        source = json.loads(Path(command[-2]).read_text())["plan"]["source"]
        assert dl.load_model(source, dtype=torch.float32).config == preset_config("tiny")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(quick("tiny", random=True, against="huggingface-eager"))


def test_a_disk_too_small_for_the_random_weights_is_told_first(quick, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9e9, 9e9, 1e6))
    monkeypatch.setattr(runs, "random_model", None)
    with pytest.raises(ValueError, match=r"weights of tiny take 0\.0 GB of disk, but .* has 0\.0 GB free"):
        run(quick("tiny", random=True, against="huggingface-eager"))


def test_engines_take_turns_and_every_round_is_kept(quick, monkeypatch):
    turns = []

    def measured(plan, name, folder):
        turns.append(name)
        limits = dataclasses.asdict(LIMITS)
        return figures(float(len(turns)), 1.0) | {"limits": limits, "greedy": [1, 2, len(turns) % 2]}

    monkeypatch.setattr(runs, "_in_fresh_process", measured)
    result = run(dataclasses.replace(quick(), engines=("eager", "compiled"), runs=3))
    assert turns == ["eager", "compiled"] * 3
    assert [round["figures"]["load"] for round in result["rounds"]] == [1, 2, 3, 4, 5, 6]
    assert {name: found["load"] for name, found in result["engines"].items()} == {"eager": 3, "compiled": 4}
    assert result["same_greedy_tokens"] == {"eager": 3, "compiled": 2}


def test_the_command_measures_in_fresh_processes_and_writes_all_figures(quick, tmp_path):
    """From random weights on the disk to the table, with Hugging Face beside; greedy tokens agree."""
    options = "--engines eager --against huggingface-eager --runs 1 --new-tokens 3 --prompts 9,600 --contexts 20"
    where = ("--device", "cpu", "--json", str(tmp_path / "found.json"))
    done = CliRunner().invoke(app, ["bench", "--random", "tiny", *options.split(), *where])
    assert done.exit_code == 0, done.output
    assert "prompts of 600 tokens are left out" in done.stderr
    for words in ("random weights of tiny, float32 on", "huggingface-eager", "limits of this machine", "64/64"):
        assert words in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["same_greedy_tokens"] == {"eager": 64, "huggingface-eager": 64}
    assert found["machine"]["torch"] == torch.__version__
    assert found["config"]["dim"] == 256
    assert found["command"].startswith("python -m decoding_llama3")
    weights = 4 * dl.LlamaConfig.from_preset("tiny").n_params
    for round in found["rounds"]:
        one = round["figures"]
        limits = one["limits_before"], one["limits_after"]
        reading, computing = (
            sum(limit[what] for limit in limits) / 2 for what in ("read_bytes_per_s", "flops_per_s")
        )
        step = (weights + 20 * 2 * 6 * 2 * 32 * 4) / one["decode"]["20"]["seconds"]
        assert one["decode"]["20"]["fraction"] == pytest.approx(step / reading)
        prompt = count_flops(preset_config("tiny"), 9) / one["prefill"]["9"]["seconds"]
        assert one["prefill"]["9"]["fraction"] == pytest.approx(prompt / computing)
        assert one["peak"]["host"] >= one["peak_after_load"]["host"] > weights
        assert one["compile"] is None
    assert found["ratios"]["eager"]["decode 20"] == pytest.approx(
        found["engines"]["eager"]["decode"]["20"]["tokens_per_s"]
        / found["engines"]["huggingface-eager"]["decode"]["20"]["tokens_per_s"]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_the_peak_of_memory_is_that_since_it_was_forgotten():
    torch.ones(50_000_000)
    measuring.forget_host_peak()
    before = measuring.host_peak_bytes()
    torch.ones(25_000_000)
    assert 90e6 < measuring.host_peak_bytes() - before < 150e6


def test_the_ladder_has_four_rungs_with_their_predictions(uncompiled, clock):
    load = partial(random_model, shrink("llama3-8b"), "cpu", torch.float32)
    limits = dataclasses.replace(LIMITS, flops_per_s=1e9)
    rungs = speed_ladder(load, 40, new_tokens=2, limits=limits)
    assert [rung.name for rung in rungs] == ["full recompute", "KV cache", "compiled step", "int8"]
    assert [rung.bound_by for rung in rungs] == ["arithmetic", "memory", "memory", "arithmetic"]
    assert rungs[0].predicted_seconds == pytest.approx(count_flops(load().config, 41) / 1e9)
    cache = 40 * 2 * 2 * 48 * 4
    assert rungs[1].predicted_seconds == pytest.approx((read_bytes(load()) + cache) / 1e9)
    assert rungs[3].predicted_seconds == pytest.approx(count_flops(load().config, 1, before=40) / 1e9)
    with pytest.raises(ValueError, match="contexts of this model have 1 to 8187 tokens here, found 8190"):
        speed_ladder(load, 8190, new_tokens=2, limits=limits)


def test_a_ladder_without_compiler_has_two_rungs(monkeypatch):
    monkeypatch.setattr(measuring, "find_compiler", lambda: None)
    rungs = speed_ladder(partial(random_model, shrink("llama3-8b")), 9, new_tokens=1, limits=LIMITS)
    assert [rung.name for rung in rungs] == ["full recompute", "KV cache"]
    assert all(rung.measured_seconds > 0 for rung in rungs)


def test_growth_is_against_context_depth_and_prompt_and_the_cache_is_exact(model):
    points = list(growth(model, (8, 20, 9000), (1, 2), (8, 30), new_tokens=1, limits=LIMITS))
    found = {(point.against, point.x): point for point in points}
    assert list(found) == [
        *(("context", n) for n in (8, 20)),
        *(("depth", n) for n in (1, 2)),
        *(("prompt", n) for n in (8, 30)),
        *(("cache", n) for n in (8, 20)),
    ]
    assert all(point.measured == point.predicted for point in points if point.against == "cache")
    a_token, a_layer = 2 * 2 * 48 * 4, 4 * (2 * 192 * 192 + 2 * 48 * 192 + 3 * 176 * 192 + 2 * 192)
    difference = found["context", 20].predicted - found["context", 8].predicted
    assert difference == pytest.approx(12 * a_token / 1e9)
    difference = found["depth", 2].predicted - found["depth", 1].predicted
    assert difference == pytest.approx((a_layer + 8 * a_token / 2) / 1e9)
    assert found["prompt", 30].predicted == pytest.approx(
        max(count_flops(model.config, 30) / 1e12, read_bytes(model) / 1e9)
    )


@pytest.mark.parametrize(("what", "words"), [("--ladder", "full recompute"), ("--growth", "seconds a token")])
def test_ladder_and_growth_are_printed_and_written(monkeypatch, tmp_path, what, words):
    monkeypatch.setattr(measuring, "find_compiler", lambda: None)
    monkeypatch.setattr(runs, "measure_limits", lambda *given: LIMITS)
    options = f"bench {what} --device cpu --new-tokens 1 --prompts 8,16 --contexts 8,16 --json".split()
    done = CliRunner().invoke(app, [*options, str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    assert words in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["plan"]["source"] == "tiny"
    assert found["limits"]["read_by"] == "sum"
    assert len(found["rungs" if what == "--ladder" else "points"]) == (2 if what == "--ladder" else 9)
