"""The command `compare`: settings, tensors, logits, the cause, exit code."""

import dataclasses
import json
import re

import pytest
import torch
from conftest import randomize, shrink
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli.commands import app
from decoding_llama3.inference.checkpoint.export import save_huggingface


def run(*args):
    return CliRunner().invoke(app, ["compare", *map(str, args)])


@pytest.fixture
def pair(tmp_path, _deterministic):
    torch.set_num_threads(1)
    for name in "ab":
        save_huggingface(randomize(dl.Transformer(shrink("llama3-8b"))), tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def settings(folder, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_equal_checkpoints_end_with_exit_code_0(pair):
    result = run(*pair)
    assert result.exit_code == 0, result.stderr
    *_, tensors, logits, verdict = result.stdout.splitlines()
    assert tensors == "Tensors: 21 equal."
    assert logits.startswith("Logits differ by 0.0e+00 at the first positions, by 0.0e+00 far into the context.")
    assert verdict == "EQUAL: the same settings and the same weights."
    assert "DIFFERS" not in result.stdout


def test_which_rope_is_this(pair):
    settings(pair[1], rope_theta=10_000.0)
    result = run(*pair)
    assert result.exit_code == 1
    (differs,) = (line for line in result.stdout.splitlines() if "DIFFERS" in line)
    assert re.fullmatch(r" *rope_theta +500000\.0 +10000\.0 +DIFFERS *", differs)
    *_, turned, verdict, cause = result.stdout.splitlines()
    assert turned == "With A's rows reordered and its settings those of B, as far as they are known: by 0.0e+00."
    assert verdict == "DIFFERENT. Likely cause:"
    assert cause == "- theta: pairs turn by theta^(-2i/head_dim): 500000 in A, 10000 in B."


def test_the_first_tensor_that_differs_is_named_with_its_difference(pair):
    model = randomize(dl.Transformer(shrink("llama3-8b")))
    model.layers[1].attention.wo.weight.data[2, 3] += 2
    save_huggingface(model, pair[1])
    result = run(*pair)
    assert result.exit_code == 1
    assert "Tensors: 20 equal, 1 close." in result.stdout
    assert re.search(
        r"First that differs: layers\.1\.attention\.wo\.weight, by up to 2, \S+ of its size\.", result.stdout
    )


def test_shapes_that_differ_are_shown(pair):
    small = randomize(dl.Transformer(shrink("llama3-8b")))
    grown = dl.Transformer(dataclasses.replace(small.config, vocab_size=328))
    state = small.state_dict()
    for name in ("tok_embeddings.weight", "output.weight"):
        state[name] = torch.cat((state[name], torch.ones(8, 192)))
    grown.load_state_dict(state)
    save_huggingface(grown, pair[1])
    result = run(*pair)
    assert (
        "First that differs: tok_embeddings.weight, of the shape (320, 192) in A, (328, 192) in B."
        in result.stdout
    )
    assert "2 equal in the rows of both, 19 equal." in result.stdout
    assert "- vocabulary grown: 320 rows in A, 328 in B" in result.stdout


def test_two_unrelated_models_get_no_cause(pair):
    save_huggingface(randomize(dl.Transformer(shrink("llama3-8b")), seed=1), pair[1])
    settings(pair[1], rope_theta=10_000.0)
    result = run(*pair)
    assert result.exit_code == 1
    *_, logits, verdict = result.stdout.splitlines()
    assert logits == "Logits were not compared: the weights are not related."
    assert verdict.startswith("DIFFERENT: two models with weights of their own, or of other shapes")
    assert "theta:" not in result.stdout
