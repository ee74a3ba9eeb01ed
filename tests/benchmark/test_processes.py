"""Engines in fresh processes: figures and failures come back, temporary files do not stay."""

import dataclasses
import json
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import randomize, shrink
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.benchmark import processes, runs
from decoding_llama3.benchmark.limits import Limits
from decoding_llama3.benchmark.models import preset_config
from decoding_llama3.benchmark.plan import make_plan
from decoding_llama3.benchmark.processes import run_in_fresh_process, run_job
from decoding_llama3.benchmark.runs import run_engines
from decoding_llama3.benchmark.work import count_flops
from decoding_llama3.cli.commands import app
from decoding_llama3.inference.checkpoint.export import save_huggingface

LIMITS = Limits(read_bytes_per_s=1e9, read_by="sum", copy_bytes_per_s=1e9, flops_per_s=1e12)


@pytest.fixture
def checkpoint(tmp_path):
    save_huggingface(randomize(dl.Transformer(shrink("llama3-8b"))), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A plan of few tokens; afterwards the temporary folder must be empty."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    options = {"prompts": (8,), "contexts": (8,), "new_tokens": 2, "runs": 1, "report": lambda line: None}
    yield partial(make_plan, **{"engines": ("eager",)} | options)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_error_of_the_other_process_arrives_as_its_one_sentence(quick, checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model\.safetensors: download the checkpoint again"):
        run_engines(quick(str(checkpoint)))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "was killed by the system"),
        (-11, "ended by signal SIGSEGV and without a result: no room"),
        (1, "ended with code 1 and without a result: no room"),
    ],
)
def test_a_process_that_dies_is_reported_in_a_sentence(quick, monkeypatch, code, words):
    def die(command, **how):
        return subprocess.CompletedProcess(command, code, stderr=b"Traceback ...\n no room\n")

    monkeypatch.setattr(subprocess, "run", die)
    with pytest.raises(ValueError, match=f"the process of eager .*{words}"):
        run_engines(quick())


def test_a_process_that_exceeds_its_time_keeps_the_figures_that_it_has(quick, monkeypatch, tmp_path):
    def run_out(command, timeout, **how):
        Path(command[-1]).write_text(json.dumps({"figures": {"load": 1.0}, "error": None}))
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run_out)
    found = run_in_fresh_process(quick(), "eager", tmp_path / "temporary", seconds=70)
    assert found == ({"load": 1.0}, "the process of eager was ended after 70 seconds, its time limit")


def test_a_process_really_ends_at_its_time_limit(quick, tmp_path):
    figures, reason = run_in_fresh_process(quick(), "eager", tmp_path / "temporary", seconds=0.5)
    assert (figures, reason) == ({}, "the process of eager was ended after 0.5 seconds, its time limit")


def run_here(tmp_path, plan) -> dict:
    """What a fresh process would write."""
    job, result = tmp_path / "job.json", tmp_path / "result.json"
    job.write_text(json.dumps({"plan": dataclasses.asdict(plan), "engine": "eager"}))
    run_job(job, result)
    assert not result.with_suffix(".partial").exists()
    return json.loads(result.read_text())


def test_an_error_that_is_no_value_error_keeps_its_first_line(monkeypatch, quick, tmp_path):
    def fail(plan, name):
        raise RuntimeError("backend failed\n\nSet TORCH_LOGS for more")

    monkeypatch.setattr(processes, "measure_figures", fail)
    error = "the engine eager failed: RuntimeError: backend failed"
    assert run_here(tmp_path, quick()) == {"figures": {}, "error": error, "complete": False}


def test_figures_that_were_measured_before_a_failure_are_kept(monkeypatch, quick, tmp_path):
    def fail(plan, name):
        yield {"load": 1.0}
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(processes, "measure_figures", fail)
    found = run_here(tmp_path, quick())
    assert found["figures"] == {"load": 1.0}
    assert found["error"] == "the engine eager failed: OutOfMemoryError: CUDA out of memory"


def test_every_state_of_the_figures_has_speeds_and_limits(monkeypatch, quick):
    """A table can be made of any of them."""
    later = dataclasses.replace(LIMITS, read_bytes_per_s=3e9)
    measured = iter([LIMITS, later])
    monkeypatch.setattr(processes, "measure_limits", lambda *given: next(measured))
    states = list(processes.measure_figures(quick(), "eager"))
    lengths = [(list(state["prefill"]), list(state["decode"])) for state in states]
    assert lengths == [([], []), (["8"], []), (["8"], ["8"]), (["8"], ["8"])]
    assert [state["limits"]["read_bytes_per_s"] for state in states] == [1e9, 1e9, 1e9, 2e9]
    before, after = (state["decode"]["8"] for state in states[-2:])
    assert before["seconds"] == after["seconds"]
    assert before["fraction"] == pytest.approx(2 * after["fraction"])


def test_the_random_weights_are_gone_after_an_interruption(quick, monkeypatch):
    """The fixture looks whether the folder is empty."""

    def interrupt(command, **how):
        source = json.loads(Path(command[-2]).read_text())["plan"]["source"]
        assert dl.load_model(source, dtype=torch.float32).config == preset_config("tiny")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_engines(quick("tiny", random=True, against="huggingface-eager"))


def test_a_disk_too_small_for_the_random_weights_is_reported_first(quick, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9e9, 9e9, 1e6))
    monkeypatch.setattr(runs, "random_model", None)
    with pytest.raises(ValueError, match=r"weights of tiny take 0\.0 GB of disk, but .* has 0\.0 GB free"):
        run_engines(quick("tiny", random=True, against="huggingface-eager"))


def test_a_missing_temporary_folder_is_one_sentence(monkeypatch, tmp_path):
    plan = make_plan(engines=("eager",), prompts=(8,), contexts=(8,), new_tokens=2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"needs a temporary folder.*set TMPDIR to a folder that can be written"):
        run_engines(plan)


def test_engines_take_turns_and_every_round_is_kept(quick, monkeypatch):
    turns = []

    def measured(plan, name, folder):
        turns.append(name)
        speed = {"8": {"tokens_per_s": 1.0}}
        figures = {"load": float(len(turns)), "first_token": 1.0, "prefill": speed, "decode": speed}
        return figures | {"limits": dataclasses.asdict(LIMITS), "greedy": [1, 2, len(turns) % 2]}, None

    monkeypatch.setattr(runs, "run_in_fresh_process", measured)
    result = run_engines(dataclasses.replace(quick(), engines=("eager", "compiled"), runs=3))
    assert turns == ["eager", "compiled"] * 3
    assert [round["figures"]["load"] for round in result["rounds"]] == [1, 2, 3, 4, 5, 6]
    assert {name: found["load"] for name, found in result["engines"].items()} == {"eager": 3, "compiled": 4}
    assert result["same_greedy_tokens"] == {"eager": 3, "compiled": 2}


@pytest.mark.long
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
    assert found["command"]
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


@pytest.mark.parametrize(("what", "words"), [("--ladder", "full recompute"), ("--scaling", "seconds per token")])
def test_ladder_and_scaling_are_printed_and_written(monkeypatch, tmp_path, what, words):
    monkeypatch.setattr("decoding_llama3.inference.compile.find_compiler", lambda: None)
    monkeypatch.setattr(runs, "measure_limits", lambda *given: LIMITS)
    options = f"bench {what} --device cpu --new-tokens 1 --prompts 8,16 --contexts 8,16 --json".split()
    done = CliRunner().invoke(app, [*options, str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    assert words in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["plan"]["source"] == "tiny"
    assert found["limits"]["read_by"] == "sum"
    assert len(found["rungs" if what == "--ladder" else "points"]) == (2 if what == "--ladder" else 9)
