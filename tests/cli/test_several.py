"""Commands under torchrun: one text comes out, the first process reads, an error in one ends all in a sentence."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import randomize, shrink
from failing_command import COMPUTING, KILLED, READING, TOKENS
from test_chat import TINY, chat
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import app
from decoding_llama3.inference.checkpoint.export import save_huggingface

HERE = Path(__file__).parent
SECONDS = 240  # a machine may be busy; processes that wait for each other for ever fail all the same


def torchrun(n: int, *words: str) -> subprocess.Popen:
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | settings, **pipes)


def finish(running: subprocess.Popen, given: str = "") -> tuple[int, str, str]:
    """Exit code, output and messages; torchrun ends its processes when it is asked to end."""
    try:
        output, messages = running.communicate(given, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        running.terminate()
        pytest.fail(f"no end after {SECONDS} seconds: {running.communicate(timeout=60)}")
    return running.returncode, output, messages


def run(*words: str, given: str = "", n: int = 2) -> tuple[int, str, str]:
    return finish(torchrun(n, "-m", "decoding_llama3", *words), given)


def errors(messages: str) -> list[str]:
    return re.findall("^error: (.*)$", messages, re.MULTILINE)


@pytest.mark.long
def test_generate_gives_the_text_of_one_process():
    words = ["generate", "-", "-n", "12", "--seed", "5", "--dtype", "float32"]
    code, output, messages = run(*words, given="Once upon a time")
    assert code == 0, messages
    assert output == CliRunner().invoke(app, words, input="Once upon a time").stdout
    assert messages.count("tiny: float32 in 2 processes, the first on cpu") == 1
    assert messages.count("tokens per second") == 2  # of the prompt and of what is new, each once


@pytest.mark.long
def test_a_seed_that_nobody_gave_is_one_for_all():
    code, output, messages = run("generate", "A king", "-n", "12", "--dtype", "float32")
    assert code == 0, messages
    (seed,) = re.findall(r"^seed (\d+)$", messages, re.MULTILINE)
    words = ["generate", "A king", "-n", "12", "--dtype", "float32", "--seed", seed]
    assert output == CliRunner().invoke(app, words).stdout


@pytest.mark.long
def test_chat_reads_in_one_process_and_answers_in_all(tmp_path):
    shape = dataclasses.replace(shrink("llama3-8b"), hidden_dim=192, vocab_size=4096, max_seq_len=256)
    save_huggingface(randomize(dl.Transformer(shape)), tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((TINY / "tokenizer.model").read_bytes())
    said = f"Who are you?\n{'a' * 3000}\nAnd the queen?\n\n"
    words = ["chat", str(tmp_path), "--temperature", "0", "--dtype", "float32", "--tokens", "8"]
    code, output, messages = run(*words, given=said, n=3)
    assert code == 0, messages
    assert output == chat(tmp_path, said, "--tokens", "8").stdout
    assert messages.count("it was not sent") == 1
    assert messages.count("you: ") == 4


@pytest.mark.long
def test_bench_tells_how_many_processes_there_were(tmp_path):
    words = ["--random", "tiny", "--runs", "1", "--new-tokens", "2", "--prompts", "8", "--contexts", "8"]
    code, output, messages = run("bench", *words, "--json", str(tmp_path / "figures.json"))
    assert code == 0, messages
    assert output.count("1 runs in 2 processes that share the model") == 1
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["plan"]["processes"] == 2
    assert list(found["engines"]) == ["eager"]
    assert found["command"].startswith("torchrun --nproc-per-node 2 -m decoding_llama3 bench --random tiny")


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("generate x", "3 processes cannot share the model's 2 key/value heads evenly: .* one of 1, 2 "),
        ("bench", "3 processes cannot share the model's 2 key/value heads evenly"),
        ("bench --ladder", "run them in one"),
        ("bench --engines int8", "measure the engine 'eager'|cannot share"),
        ("generate x --compile", "3 processes that share a model cannot compile its step: leave out --compile"),
        ("generate x --device mps", "'cpu', or on 'cuda'|cannot share"),
        ("generate x --bogus", "no such option: --bogus"),
        ("info", "torchrun has started 3 processes, but info runs in one"),
    ],
)
def test_what_processes_cannot_share_is_said_once(words, sentence):
    code, output, messages = run(*words.split(), n=3)
    assert code != 0
    assert output == ""
    (error,) = errors(messages)
    assert re.search(sentence, error)
    assert "Traceback" not in messages.split("torch/distributed/elastic")[0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (READING, "the disk of the second process has gone: mount it again"),
        (COMPUTING, r"memory ran out \(CUDA out of memory.*"),
        (KILLED, "another of the processes that share the model has ended without a word.*"),
    ],
)
def test_a_failure_in_one_ends_all_in_one_sentence(how, sentence):
    start = time.monotonic()
    words = ["generate", "A king", "-n", "400", "--seed", "5", "--dtype", "float32"]
    code, output, messages = finish(torchrun(2, str(HERE / "failing_command.py"), how, *words))
    assert code != 0
    assert time.monotonic() - start < SECONDS / 2
    (error,) = errors(messages)
    assert re.fullmatch(sentence, error)
    assert len(output.split()) < 3 * TOKENS


@pytest.mark.long
def test_ctrl_c_ends_all_without_a_word():
    running = torchrun(2, "-m", "decoding_llama3", "generate", "A king", "-n", "500", "--dtype", "float32")
    assert running.stdout.read(6) == "A king"
    running.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, _, messages = finish(running)
    assert errors(messages) == []
    assert time.monotonic() - start < 25, "torchrun kills after 30 seconds what does not end"
