"""The command `verify`: table, verdict, a row for README, exit code."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from conftest import randomize, shrink
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli.commands import app
from decoding_llama3.comparison import verification
from decoding_llama3.inference.checkpoint.export import save_huggingface

README = Path(__file__).parents[2] / "README.md"


def run(*args: str):
    return CliRunner().invoke(app, ["verify", *map(str, args)])


@pytest.fixture
def checkpoint(tmp_path, _deterministic):
    torch.set_num_threads(1)
    config = dataclasses.replace(shrink("llama3-8b"), n_layers=3)
    save_huggingface(randomize(dl.Transformer(config)), tmp_path / "small|one")
    return tmp_path / "small|one"


def test_an_equal_model_ends_with_a_row_for_readme_and_exit_code_0(checkpoint):
    result = run(checkpoint, "--tokens", 7)
    assert result.exit_code == 0, result.stderr
    *_, verdict, empty, row = result.stdout.splitlines()
    assert "24 tokens: ids at random, because" in result.stderr
    assert verdict == "EQUAL within the tolerance of float32, 0.0001 of a token's vector."
    assert empty == ""
    cells = r"\| small\\\|one \| [\d,]+ \| float32 \| \d\.\de-0\d \| 7 of 7 \| torch \S+, transformers [\d.]+ \|"
    assert re.fullmatch(cells, row)
    places = ["embedding", *(f"layer {i}, after its {p}" for i in range(3) for p in ("attention", "feed-forward"))]
    places += ["after the last norm", "logits", "logits far into the context"]
    table = result.stdout.splitlines()[1 : 1 + len(places)]
    for place, line in zip(places, table, strict=True):
        assert re.fullmatch(rf" *{place} +\d\.\de[+-]\d\d +\d\.\de[+-]\d\d *", line)


def test_a_fault_ends_with_the_layer_named_and_exit_code_1(checkpoint, monkeypatch):
    load = verification.load_model

    def swapped(*args):
        model = load(*args)
        model.layers[1], model.layers[2] = model.layers[2], model.layers[1]
        return model

    monkeypatch.setattr(verification, "load_model", swapped)
    result = run(checkpoint, "--tokens", 3, "--ids", "5,7,300,2,41")
    assert result.exit_code == 1
    assert "DIFFERENT: first layer 1, after its attention, by " in result.stdout
    beyond = [line.split("  ")[0].strip() for line in result.stdout.splitlines() if "DIFFERS" in line]
    assert beyond[0] == "layer 1, after its attention"
    assert "5 tokens: the ids given" in result.stderr


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "the comparison with Hugging Face needs transformers: pip install 'decoding-llama3[test]'"),
        ("4.57.1", "the comparison needs transformers 5.4 or newer, found 4.57.1"),
    ],
)
def test_without_transformers_a_sentence_says_what_to_install(checkpoint, found, words, monkeypatch):
    monkeypatch.setattr("decoding_llama3.benchmark.huggingface.version", lambda package: found)
    result = run(checkpoint)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_tiny_is_compared_on_a_text_of_ones_own():
    result = run("tiny", "--prompt", "The king's daughter", "--tokens", 5, "--dtype", "float32")
    assert result.exit_code == 0, result.stderr
    assert 'tokens: "The king\'s daughter"' in result.stderr
    assert "| 5 of 5 |" in result.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_readme_has_the_row_that_the_command_prints(name, request):
    """But for the last bits of the difference, which another processor rounds otherwise, and the versions."""
    if name == "smollm2":
        request.getfixturevalue("smollm2")
    result = run(name, "--dtype", "float32")
    assert result.exit_code == 0, result.stderr
    (published,) = (
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name} |")
    )
    ours, theirs = (line.split(" | ") for line in (result.stdout.splitlines()[-1], published))
    assert [cell for i, cell in enumerate(ours[:5]) if i != 3] == [
        cell for i, cell in enumerate(theirs[:5]) if i != 3
    ]
    assert 0.1 < float(ours[3]) / float(theirs[3]) < 10
