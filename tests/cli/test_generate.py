"""`generate`: how the text is drawn, and what is said about it on standard error."""

import re

import pytest
import torch
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import app
from decoding_llama3.cli.generate import TINY_TEMPERATURE
from decoding_llama3.cli.speed import Speed

PROMPT = "Once upon a time"


def run(*args: str, text: str | None = None):
    result = CliRunner().invoke(app, ["generate", *args], input=text)
    assert result.exit_code == 0, result.output
    return result


def drawn_by_the_package(n: int, **how) -> str:
    model, tokenizer = dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny")
    ids = tokenizer.encode(PROMPT, bos=True)
    tokens = dl.generate(model, ids, n, stop_ids=tokenizer.stop_ids, **how)
    return f"{PROMPT}{tokenizer.decode(tokens)}\n"


def test_tiny_is_sampled_by_default():
    expected = drawn_by_the_package(30, temperature=TINY_TEMPERATURE, top_p=0.9, seed=5)
    assert run(PROMPT, "-n", "30", "--seed", "5", "--dtype", "float32").stdout == expected


def test_a_temperature_that_is_given_is_taken():
    assert run(PROMPT, "-n", "30", "--temperature", "0", "--dtype", "float32").stdout == drawn_by_the_package(30)


def test_another_checkpoint_is_greedy_by_default():
    path = str(dl.inference.data.data_directory() / "tiny-llama3")
    result = run(PROMPT, path, "-n", "30", "--dtype", "float32")
    assert result.stdout == drawn_by_the_package(30)
    assert "seed" not in result.stderr


def test_the_default_does_not_repeat_itself_as_the_most_probable_token_does():
    """The share of different 4-token sequences in 300 tokens: 1 if none comes twice."""
    tokenizer = dl.load_tokenizer("tiny")

    def share(*options: str) -> float:
        ids = tokenizer.encode(run(PROMPT, "-n", "300", *options).stdout)
        fours = [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]
        return len(set(fours)) / len(fours)

    sampled, greedy = share("--seed", "1"), share("--temperature", "0")
    assert sampled > 0.9 > greedy


def test_the_seed_that_was_drawn_is_printed_and_gives_the_text_again():
    first = run(PROMPT, "-n", "20")
    (seed,) = re.findall(r"^seed (\d+)$", first.stderr, re.MULTILINE)
    again = run(PROMPT, "-n", "20", "--seed", seed)
    assert again.stdout == first.stdout
    assert "seed" not in again.stderr
    assert run(PROMPT, "-n", "20").stdout != first.stdout


def test_tokens_per_second_come_on_standard_error():
    *_, last = run(PROMPT, "-n", "20", "--temperature", "0").stderr.splitlines()
    n_prompt = len(dl.load_tokenizer("tiny").encode(PROMPT, bos=True))
    speed = r"[\d.,e+]+ tokens per second"
    assert re.fullmatch(rf"prompt: {n_prompt} tokens read, {speed}; new: 20 tokens, {speed}", last)


@pytest.mark.parametrize(("n", "words"), [("0", "no new tokens"), ("1", "new: 1 tokens")])
def test_a_text_without_steps_has_no_rate_of_decoding(n, words):
    assert run(PROMPT, "-n", n).stderr.splitlines()[-1].endswith(words)


def test_rates_are_tokens_over_the_seconds_of_a_clock(monkeypatch):
    """Read 10 tokens in 2 s, then three steps of 0.5, 20 and 0.5 s, the second of which compiles."""
    clock = iter([0.0, 0.0, 2.0, 2.5, 22.5, 23.0])
    monkeypatch.setattr("decoding_llama3.cli.speed.time.perf_counter", lambda: next(clock))
    speed = Speed()
    for i, _ in enumerate(speed.timed([1, 2, 3, 4], n_read=10)):
        if i == 1:
            speed.report("compiling")
    assert speed.line() == (
        "prompt: 10 tokens read, 5 tokens per second; new: 4 tokens, 2 tokens per second; compiling: 20.0 s"
    )


def test_what_the_generator_reports_goes_to_standard_error(monkeypatch):
    """Not among the text, where `print` would put it."""
    monkeypatch.setattr("decoding_llama3.inference.generator.can_compile", lambda device: False)
    result = run(PROMPT, "-n", "2", "--compile", "--temperature", "0", "--dtype", "float32")
    assert result.stdout == drawn_by_the_package(2)
    assert "no C++ compiler found" in result.stderr


def test_the_tokens_are_shown_if_asked_for():
    tokenizer = dl.load_tokenizer("tiny")
    result = CliRunner().invoke(
        app, ["generate", "A king", "--tokens", "2", "--temperature", "0", "--show-tokens"]
    )
    ids = tokenizer.encode("A king", bos=True)
    shown = " | ".join(f"{token} {tokenizer.decode([token])!r}" for token in ids)
    assert f"prompt: {shown}" in result.stderr
    assert len(result.stderr.split("new tokens: ")[1].splitlines()[0].split(" | ")) == 2
