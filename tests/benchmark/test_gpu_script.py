"""The script for a card, without one: on the CPU with tiny, and on pretended cards."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from decoding_llama3.benchmark import huggingface
from decoding_llama3.inference import memory

FILE = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", str(FILE.parents[1]))
    spec = importlib.util.spec_from_file_location("gpu_script", FILE)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture
def plan(gpu):
    """tiny on the CPU, in place of the 8B on a card."""
    engines = ("eager", "huggingface-eager")
    return gpu.gpu_plan("tiny", "cpu", engines, prompts=(8,), contexts=(8, 20), new_tokens=2)


FIGURES = {
    "load": 1.0,
    "first_token": 1.0,
    "peak": {"host": 1, "device": None},
    "compile": None,
    "prefill": {},
    "decode": {"8": {"seconds": 0.5, "tokens_per_s": 2.0, "fraction": 0.5}},
    "greedy": [1, 2],
    "limits": {"read_bytes_per_s": 1e9, "read_by": "sum", "copy_bytes_per_s": 1e9, "flops_per_s": 1e12},
}


@pytest.mark.long
def test_tiny_is_measured_on_the_cpu_as_the_8b_on_a_card(gpu, plan, tmp_path):
    """In real processes, with a test that passes and one that is skipped."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_a(): pass\n"
        "@pytest.mark.gpu\ndef test_b(): pytest.skip('no card')\ndef test_c(): assert False\n"
    )
    saved = []
    result = gpu.run_parts(plan, tmp_path, 1200.0, lambda result: saved.append(json.dumps(result)))
    assert (result["left_out"], result["incomplete"]) == ({}, {})
    tests = result["tests"]
    assert (tests["passed"], tests["skipped"], tests["failed"], tests["code"]) == (1, 1, 0, 0)
    assert list(result["engines"]) == ["eager", "huggingface-eager"]
    for figures in result["engines"].values():
        assert (list(figures["prefill"]), list(figures["decode"])) == (["8"], ["8", "20"])
        assert figures["decode"]["20"]["fraction"] > 0
    assert set(result["ratios"]) == set(result["same_greedy_tokens"]) == {"eager"}
    assert result["machine"]["torch"] == torch.__version__
    assert [len(json.loads(text)["engines"]) for text in saved] == [0, 0, 1, 2]


def test_the_plan_for_a_card_is_the_8b_and_its_engines(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "choose_dtype", lambda device: torch.bfloat16)
    plan = gpu.gpu_plan()
    assert plan.config.n_params == 8_030_261_248
    assert plan.config.max_seq_len >= max(plan.contexts) + plan.new_tokens + 3
    assert plan.engines == ("compiled", "int8", "huggingface-compiled")
    assert {512, 2048} <= set(plan.prompts)
    assert plan.contexts == (128, 1024, 4096, 8192)


def pretend(gpu, monkeypatch, free: float, dtype: torch.dtype) -> dict:
    """The result of a card with so many bytes free, on which every engine gives FIGURES."""
    monkeypatch.setattr(gpu, "choose_dtype", lambda device: dtype)
    monkeypatch.setattr(memory, "choose_dtype", lambda device: dtype)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    monkeypatch.setattr(gpu, "header", lambda plan: {})
    monkeypatch.setattr(gpu, "run_in_fresh_process", lambda plan, name, folder, seconds: (FIGURES, None))
    monkeypatch.setattr(gpu, "run_tests", lambda folder, seconds: ({"passed": 9}, None))
    return gpu.run_parts(gpu.gpu_plan(), report=lambda line: None)


def test_a_card_of_15_gb_measures_int8_alone_and_says_why(gpu, monkeypatch):
    result = pretend(gpu, monkeypatch, 14.5e9, torch.float16)
    assert list(result["engines"]) == ["int8"]
    assert set(result["left_out"]) == {"compiled", "huggingface-compiled"}
    assert all("GiB are free: use quantize='int8'" in reason for reason in result["left_out"].values())
    assert result["ratios"] == {}


def test_a_card_of_80_gb_measures_all(gpu, monkeypatch):
    result = pretend(gpu, monkeypatch, 79e9, torch.bfloat16)
    assert list(result["engines"]) == ["compiled", "int8", "huggingface-compiled"]
    assert result["left_out"] == {}
    assert result["ratios"]["int8"]["decode 8"] == 1.0


def test_without_transformers_the_baseline_is_left_out(gpu, monkeypatch):
    monkeypatch.setattr(huggingface, "version", lambda package: None)
    result = pretend(gpu, monkeypatch, 79e9, torch.bfloat16)
    assert list(result["engines"]) == ["compiled", "int8"]
    assert "transformers: pip install" in result["left_out"]["huggingface-compiled"]


def test_parts_share_the_time_that_is_left_and_late_ones_are_left_out(gpu, plan, monkeypatch, tmp_path):
    """The tests take 10 of their 200 seconds, and the engines gain the others; the first takes nearly all."""
    clock, shares = [0.0], {}

    def take(seconds, part, share, found):
        clock[0] += seconds
        shares[part] = share
        return found

    monkeypatch.setattr(gpu, "run_tests", lambda folder, share: take(10, "tests", share, ({}, None)))
    stopped = ({}, "the process of eager was ended after 295 seconds, its time limit")
    monkeypatch.setattr(
        gpu, "run_in_fresh_process", lambda plan, name, folder, share: take(560, name, share, stopped)
    )
    lines = []
    result = gpu.run_parts(plan, tmp_path, 600.0, report=lines.append, now=lambda: clock[0])
    assert shares == {"tests": 200.0, "eager": 295.0}
    assert result["engines"] == {}
    assert result["incomplete"] == {"eager": stopped[1]}
    assert result["left_out"] == {"huggingface-eager": "left out, because 30 seconds are too few for it"}
    assert "huggingface-eager: left out, because 30 seconds are too few for it" in lines


def test_missing_tests_or_pytest_are_left_out_in_a_sentence(gpu, plan, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "run_in_fresh_process", lambda *given: (FIGURES, None))
    result = gpu.run_parts(plan, tmp_path / "nowhere", report=lambda line: None)
    assert result["left_out"] == {"tests": f"left out, because there is no folder {tmp_path / 'nowhere'}"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = gpu.run_parts(plan, tmp_path, report=lambda line: None)
    assert "pytest is not installed" in result["left_out"]["tests"]


@pytest.mark.parametrize(
    ("printed", "code", "words"),
    [
        ("2 failed, 5 passed, 1 skipped in 9s", 1, "2 failed, 0 errors, 5 passed: see their output"),
        ("1 passed, 1 error in 9s", 1, "0 failed, 1 errors, 1 passed"),
        ("8 skipped in 1s", 0, "0 failed, 0 errors, 0 passed"),
    ],
)
def test_tests_that_do_not_pass_are_counted(gpu, monkeypatch, tmp_path, printed, code, words):
    def run(command, **how):
        return subprocess.CompletedProcess(command, code, stdout=printed, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    found, reason = gpu.run_tests(tmp_path, 60.0)
    assert words in reason
    assert found["output"] == printed


def test_tests_that_take_too_long_are_ended(gpu, tmp_path):
    (tmp_path / "test_it.py").write_text("import time, pytest\n@pytest.mark.gpu\ndef test_a(): time.sleep(600)\n")
    found, reason = gpu.run_tests(tmp_path, 3.0)
    assert reason == "were ended after 3 seconds"
    assert "output" in found


def test_an_old_torch_or_no_card_is_refused_in_a_sentence(gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    assert gpu.main(["--json", str(tmp_path / "x.json")]) == 2
    assert "torch 2.9.1+cu128 is installed, and 2.11 or newer is needed" in capsys.readouterr().err
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--json", str(tmp_path / "x.json")]) == 2
    assert "torch sees no NVIDIA card here" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("where", "words"), [(".", "is a directory"), ("no-folder/x.json", "no such file or directory")]
)
def test_a_result_that_could_not_be_written_is_refused_first(gpu, monkeypatch, capsys, tmp_path, where, words):
    monkeypatch.setattr(gpu, "check_versions", lambda: None)
    monkeypatch.setattr(gpu, "run_parts", None)
    assert gpu.main(["--json", str(tmp_path / where)]) == 2
    assert f"cannot be written: {words}" in capsys.readouterr().err


def test_the_result_is_written_after_each_part_and_printed(gpu, plan, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "check_versions", lambda: None)
    monkeypatch.setattr(gpu, "gpu_plan", lambda: plan)
    seen, file = [], tmp_path / "found.json"

    def measured(plan, name, folder, seconds):
        seen.append(list(json.loads(file.read_text())["engines"]))
        return FIGURES | {"prefill": {}}, None

    monkeypatch.setattr(gpu, "run_in_fresh_process", measured)
    monkeypatch.setattr(gpu, "run_tests", lambda folder, seconds: ({}, "1 failed"))
    assert gpu.main(["--json", str(file)]) == 1
    assert seen == [[], ["eager"]]
    assert json.loads(file.read_text())["incomplete"] == {"tests": "1 failed"}
    printed = capsys.readouterr().out
    assert "limits of this machine" in printed
    assert f"all figures are in {file}" in printed
