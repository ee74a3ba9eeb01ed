"""Every wrong call ends with exit code 2 and one sentence on standard error, never with a traceback."""

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path

import pytest
import torch
from conftest import randomize, shrink
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli import app
from decoding_llama3.inference.checkpoint.export import save_huggingface

TINY = dl.inference.data.data_directory() / "tiny-llama3"
LONG = "x" * 5000
HUGE = 10**30
NO_PROC = pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is a folder that takes no files")

# A call, in which {place} is the folder of the fixture, and words of the sentence.
CALLS = {
    "top": [
        ("generat x", "no such command 'generat'"),
        ("--no-such-option", "no such option"),
        ("--versions", "no such option"),
    ],
    "generate": [
        ("generate", "missing argument"),
        ("generate x tiny more", "unexpected extra argument"),
        ("generate x --no-such-option", "no such option"),
        ("generate x --tokens", "requires an argument"),
        ("generate x --tokens many", "integer, found 'many'"),
        ("generate x --tokens 1.5", "--tokens"),
        ("generate x --tokens=-1", "found '-1'"),
        ("generate x --temperature warm", "--temperature"),
        ("generate x --temperature -1", "--temperature"),
        ("generate x --temperature nan", "temperature"),
        ("generate x --temperature inf", "temperature must be 0 (the most probable token) or more"),
        ("generate x --top-p some", "--top-p"),
        ("generate x --top-p 0", "top_p must be above 0"),
        ("generate x --top-p -0.5", "top_p must be above 0"),
        ("generate x --top-p 1.5", "top_p must be above 0"),
        ("generate x --top-p nan", "top_p must be above 0"),
        ("generate x --seed a", "--seed"),
        ("generate x --seed 1.5", "--seed"),
        (f"generate x --seed {HUGE}", "a seed has at most 64 bits"),
        (f"generate x --temperature 0 --seed {HUGE}", "a seed has at most 64 bits"),
        ("generate x --device gpu", "device 'gpu' cannot be used here"),
        ("generate x --device cuda:99", "device 'cuda:99' cannot be used here"),
        ("generate x --device hpu", "device 'hpu' cannot be used here"),
        ("generate x --device cpu:x", "device 'cpu:x' cannot be used here"),
        ("generate x --device meta", "device 'meta' cannot be used here"),
        ("generate x --dtype int4", "dtype is one of float32, bfloat16, float16, found 'int4'"),
        ("generate x --dtype float64", "dtype is one of float32"),
        ("generate x --dtype ''", "dtype is one of float32"),
        ("generate x --quantize int2", "found 'int2'"),
        ("generate x --quantize INT8", "found 'INT8'"),
        ("generate x --tokenizer llama3", "has 128256 tokens, but the model in"),
        ("generate x --tokenizer {place}/none", "tokenizer"),
        ("generate x --tokenizer {place}/latin.txt", "latin.txt"),
        ("generate x no/such/folder", "no directory no/such/folder"),
        ("generate x {place}/latin.txt", "is a file: pass the directory of the checkpoint"),
        ("generate x {place}/empty", "neither config.json"),
        (f"generate x {LONG}", "no directory 'xxx"),
        ("generate x {place}/configuration_alone", "tokenizer.model"),
        ("generate x {place}/huge --tokenizer tiny", ""),
        ("generate x {place}/deep --tokenizer tiny", "nested"),
        ("generate x {place}/utf16 --tokenizer tiny", "UTF-8"),
        ("generate x {place}/not_finite --temperature 0", "logits are not finite"),
        ("generate x {place}/not_finite --temperature 1", "logits are not finite"),
        (f"generate '{'x ' * 600}'", "the model's context 512"),
    ],
    "chat": [
        ("chat", "missing argument"),
        ("chat tiny", "has never seen a chat"),
        ("chat no/such/folder", "no directory no/such/folder"),
        ("chat {place}/empty", "neither config.json"),
        (f"chat {LONG}", "no directory 'xxx"),
        ("chat {place}/mine", "no tokenizer.model"),
        ("chat {place}/mine --tokenizer {place}/none", "tokenizer"),
        ("chat {place}/mine --tokenizer llama3", "has 128256 tokens, but the model in"),
        ("chat {place}/mine --tokenizer tiny --tokens -1", "--tokens"),
        ("chat {place}/mine --tokenizer tiny --temperature -1", "--temperature"),
        ("chat {place}/mine --tokenizer tiny --temperature nan", "temperature"),
        ("chat {place}/mine --tokenizer tiny --top-p 2", "top_p must be above 0"),
        (f"chat {{place}}/mine --tokenizer tiny --seed {HUGE}", "a seed has at most 64 bits"),
        (f"chat {{place}}/mine --tokenizer tiny --system '{'be brief ' * 99}'", "the system message has"),
        ("chat {place}/mine --device gpu", "device 'gpu' cannot be used here"),
    ],
    "info": [
        ("info llama9", "no preset and no directory is called llama9"),
        ("info tiny more", "unexpected extra argument"),
        ("info {place}/empty", "neither config.json"),
        ("info {place}/latin.txt", "is a file: pass the directory of the checkpoint"),
        ("info {place}/deep", "nested"),
        ("info {place}/utf16", "UTF-8"),
        (f"info {LONG}", "name too long"),
    ],
    "models": [
        ("models tiny", "unexpected extra argument"),
        ("models --all", "no such option"),
        ("models -v", "no such option"),
    ],
    "download": [
        ("download llama9", "no model is called 'llama9' here: 'smollm2' is, or OWNER/NAME"),
        ("download owner/", "'owner/' is no name of a model on the Hugging Face Hub"),
        ("download a/b/c", "is no name of a model on the Hugging Face Hub"),
        (f"download owner/{LONG}", "is no name of a model on the Hugging Face Hub"),
        ("download smollm2 --file x.gguf", "--file, --revision and --to go with OWNER/NAME"),
        ("download smollm2 --to {place}", "--file, --revision and --to go with OWNER/NAME"),
        ("download owner/name --to {place}/latin.txt", "--to"),
        ("download owner/name --revision", "requires an argument"),
        ("download ''", "no model is called ''"),
        ("download smollm2 more", "unexpected extra argument"),
    ],
    "verify": [
        ("verify", "missing argument"),
        ("verify no/such/folder", "no directory no/such/folder"),
        ("verify {place}/empty", "neither config.json"),
        ("verify tiny --prompt x --ids 1", "found --prompt and --ids"),
        ("verify tiny --ids 1,x", "ids are whole numbers with commas between, as 1,15,27, found '1,x'"),
        ("verify tiny --ids ''", "ids are whole numbers"),
        ("verify tiny --ids 5000", "token id 5000 in the prompt is outside the model's 0 to 4095"),
        (f"verify tiny --prompt '{'x ' * 600}'", "the model's context 512"),
        ("verify tiny --tokenizer tiny", "found --tokenizer without a --prompt"),
        ("verify {place}/mine --prompt x", "tokenizer.model"),
        ("verify tiny --tokens=-1", "found '-1'"),
        ("verify tiny --dtype int4", "dtype is one of float32"),
        ("verify tiny --device gpu", "device 'gpu' cannot be used here"),
        ("verify {place}/not_finite --ids 1,2", "logits are not finite"),
    ],
    "compare": [
        ("compare", "missing argument"),
        ("compare tiny", "missing argument"),
        ("compare tiny no/such/folder", "no directory no/such/folder"),
        ("compare {place}/empty tiny", "neither config.json"),
        ("compare tiny {place}/configuration_alone", "lacks model.safetensors"),
        ("compare tiny {place}/deep", "nested"),
        ("compare tiny tiny tiny", "unexpected extra argument"),
    ],
    "export": [
        ("export", "missing argument 'source'"),
        ("export tiny", "missing argument 'target'"),
        ("export nowhere out", "no directory nowhere"),
        ("export tiny .", "TARGET . is not empty: give a new folder"),
        ("export tiny out --dtype int4", "dtype is one of float32"),
        ("export tiny out --tokenizer llama3", "has 128256 tokens, but the model in"),
    ],
    "bench": [
        ("bench tiny --random 125m", "found a checkpoint (tiny) and --random 125m"),
        ("bench --random 7b", "no preset is called '7b'"),
        ("bench --random ''", "no preset is called ''"),
        ("bench no/such/folder", "no directory no/such/folder"),
        (f"bench {LONG}", "no directory 'xxx"),
        ("bench --prompts '128;512'", "--prompts are whole numbers with commas between"),
        ("bench --prompts ''", "--prompts are whole numbers with commas between"),
        ("bench --prompts 0", "prompts have 1 token or more"),
        ("bench --contexts 4096", "none of the contexts 4096 fits: take 445 tokens or fewer"),
        ("bench --contexts 1.5", "--contexts are whole numbers with commas between"),
        ("bench --contexts=-4", "contexts have 1 token or more"),
        ("bench --engines warp", "no engine is called 'warp'"),
        ("bench --engines ''", "no engine is called ''"),
        ("bench --against vllm", "no baseline is called 'vllm'"),
        ("bench --runs 0", "--runs"),
        ("bench --new-tokens none", "--new-tokens"),
        ("bench --ladder --scaling", "found --ladder and --scaling: give one of the two"),
        ("bench --device gpu", "device 'gpu' cannot be used here"),
        ("bench --dtype int4", "dtype is one of float32"),
        ("bench --json no-folder/x.json", "--json no-folder/x.json lies in no folder there is"),
        ("bench --json {place}", "is a folder: give the name of a file"),
        ("bench --json {place}/latin.txt/x.json", "lies in no folder there is"),
        (f"bench --json {LONG}", "name too long"),
        pytest.param("bench --json /proc/x.json", "--json /proc/x.json cannot be written", marks=NO_PROC),
    ],
    "prepare": [
        ("prepare", "missing argument"),
        ("prepare {place}/texts", "missing option '--out'"),
        ("prepare {place}/texts --out {place}/out --ranges {place}/none.csv --words {place}/words", "none.csv"),
        ("prepare {place}/texts --out {place}/out --ranges {place}/ranges.csv --words {place}/none", "no file"),
        (
            "prepare {place}/texts --out {place}/out --ranges {place}/ranges.csv --words {place}/nothing",
            "no words",
        ),
        (
            "prepare {place}/none --out {place}/out --ranges {place}/ranges.csv --words {place}/words",
            "lacks 'a.txt'",
        ),
        ("prepare {place}/texts --out {place}/words --ranges {place}/ranges.csv --words {place}/words", "--out"),
        ("prepare {place}/texts --out {place}/words/x --ranges {place}/ranges.csv --words {place}/words", "--out"),
        (f"prepare {{place}} --out {LONG} --ranges {{place}}/ranges.csv --words {{place}}/words", "too long"),
        ("prepare {place}/texts --out {place}/out --ranges {place}/texts --words {place}/words", "no file"),
        ("prepare {place}/texts --out {place}/out --ranges {place}/latin.txt --words {place}/words", "UTF-8"),
        ("prepare {place}/texts --out {place}/out --ranges {place}/up.csv --words {place}/words", ""),
        ("prepare {place}/texts --out {place}/out --ranges {place}/far.csv --words {place}/words", "which has 4"),
        ("prepare {place}/texts --out {place}/out --ranges {place}/word.csv --words {place}/words", ""),
        pytest.param(
            "prepare {place}/texts --out /proc/x --ranges {place}/ranges.csv --words {place}/words",
            "--out /proc/x cannot be written",
            marks=NO_PROC,
        ),
    ],
    "train": [
        ("train", "missing argument"),
        ("train {place}/texts", "missing option '--out'"),
        ("train {place}/texts --out {place}/out", "missing option '--held-out'"),
        ("train {place}/none --out {place}/out --held-out z.txt", "there is no folder"),
        ("train {place}/texts --out {place}/out --held-out none.txt", "no none.txt"),
        ("train {place}/texts --out {place}/out --held-out empty.txt", "is empty"),
        ("train {place} --out {place}/out --held-out latin.txt", "UTF-8"),
        ("train {place}/texts --out {place}/words --held-out z.txt", "cannot be a folder"),
        ("train {place}/texts --out {place}/words/x --held-out z.txt", "cannot be a folder"),
        (f"train {{place}}/texts --out {LONG} --held-out z.txt", "too long"),
        ("train {place}/texts --out {place}/out --held-out z.txt --device cuda:99", "cannot be used here"),
        ("train {place}/texts --out {place}/out --held-out z.txt --device gpu", "cannot be used here"),
        ("train {place}/texts --out {place}/out --held-out z.txt --config llama9", "no preset and no directory"),
        ("train {place}/texts --out {place}/out --held-out z.txt --config {place}/deep", "nested"),
        ("train {place}/texts --out {place}/out --held-out z.txt --steps 0", "--steps"),
        ("train {place}/texts --out {place}/out --held-out z.txt --batch 0", "--batch"),
        ("train {place}/texts --out {place}/out --held-out z.txt --seq-len 1", "--seq-len"),
        ("train {place}/texts --out {place}/out --held-out z.txt --warmup 0", "--warmup"),
        ("train {place}/texts --out {place}/out --held-out z.txt --learning-rate fast", "--learning-rate"),
        ("train {place}/texts --out {place}/out --held-out z.txt --repeats 1:2", "repeats are step:share:longest"),
        ("train {place}/texts --out {place}/out --held-out z.txt --repeats 0:7:9", "a share of repeats must be"),
        (
            "train {place}/texts --out {place}/damaged --held-out z.txt --config {place}/mine --seq-len 16",
            "damaged",
        ),
        pytest.param(
            "train {place}/texts --out /proc/x --held-out z.txt", "--out /proc/x cannot be written", marks=NO_PROC
        ),
    ],
    "ablate": [
        ("ablate norms --out {place}/out", "no group of variants is called 'norms'"),
        ("ablate --seeds 0", "--seeds"),
        ("ablate --steps none", "--steps"),
        ("ablate --jobs 0", "found '0'"),
        ("ablate norm --out {place}/words", "cannot be a folder"),
        (f"ablate norm --out {LONG}", "too long"),
        pytest.param("ablate norm --out /proc/x", "--out /proc/x cannot be written", marks=NO_PROC),
    ],
    "evaluate": [
        ("evaluate", "missing argument"),
        ("evaluate {place}/texts", "missing option '--held-out'"),
        ("evaluate {place}/none --held-out z.txt --out {place}/e.json", "there is no folder"),
        ("evaluate {place}/texts --held-out empty.txt --out {place}/e.json", "is empty"),
        ("evaluate {place}/texts --held-out z.txt --out {place}", "is a folder: give the name of a file"),
        ("evaluate {place}/texts --held-out z.txt --out {place}/none/e.json", "lies in no folder there is"),
        (f"evaluate {{place}}/texts --held-out z.txt --out {LONG}", "too long"),
        ("evaluate {place}/texts --held-out z.txt --out {place}/e.json --words {place}/none", "no file"),
        ("evaluate {place}/texts --held-out z.txt --out {place}/e.json --tales 0", "--tales"),
        ("evaluate {place}/texts --held-out z.txt --out {place}/e.json --prompts x", "--prompts"),
        ("evaluate {place}/texts --held-out z.txt --out {place}/e.json --device gpu", "cannot be used here"),
        ("evaluate {place}/texts no/such --held-out z.txt --out {place}/e.json", "no directory no/such"),
    ],
}
ALL = [case for cases in CALLS.values() for case in cases]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with right and wrong texts, lists and checkpoints."""
    place = tmp_path_factory.mktemp("place")
    texts = place / "texts"
    texts.mkdir()
    line = "the king said to the queen that the bird had gone to the old wood\n"
    for name, text in (("a", 4 * line), ("b", 400 * line), ("z", 4 * line), ("empty", "")):
        (texts / f"{name}.txt").write_text(text)
    (place / "latin.txt").write_bytes("file,first,last\nDörnröschen,1,2\n".encode("latin-1"))
    (place / "words").write_text("dragon\n")
    (place / "nothing").write_text("\n")
    for name, row in (("ranges", "a.txt,1,2"), ("far", "a.txt,1,9"), ("word", "a.txt,x,2"), ("up", "../x/y,1,1")):
        (place / f"{name}.csv").write_text(f"file,first,last\n{row}\n")
    _save_checkpoints(place)
    (place / "damaged").mkdir()
    (place / "damaged" / "state.pt").write_bytes(b"no state")
    (place / "damaged" / "tokenizer.model").write_bytes((TINY / "tokenizer.model").read_bytes())
    return place


def _save_checkpoints(place: Path) -> None:
    (place / "empty").mkdir()
    shape = dataclasses.replace(shrink("llama3-8b"), vocab_size=dl.load_tokenizer("tiny").n_vocab, max_seq_len=128)
    model = randomize(dl.Transformer(shape))
    save_huggingface(model, place / "mine")
    with torch.no_grad():
        model.norm.weight.fill_(torch.nan)
    save_huggingface(model, place / "not_finite")
    (place / "not_finite" / "tokenizer.model").write_bytes((TINY / "tokenizer.model").read_bytes())
    config = json.loads((place / "mine" / "config.json").read_text())
    for name, data in (
        ("configuration_alone", json.dumps(config).encode()),
        ("huge", json.dumps(config | {"hidden_size": 12 * 2**58, "head_dim": None}).encode()),
        ("deep", b'{"a":' + b"[" * 100_000),
        ("utf16", json.dumps(config).encode("utf-16")),
        ("rope_list", json.dumps(config | {"rope_scaling": [1]}).encode()),
    ):
        (place / name).mkdir()
        (place / name / "config.json").write_bytes(data)
    numbers = {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 131, "multiple_of": 0, "norm_eps": 1e-5}
    (place / "multiple_of_0").mkdir()
    (place / "multiple_of_0" / "params.json").write_text(json.dumps(numbers))


def call(place: Path, line: str, stdin: bytes = b""):
    args = [part.replace("{place}", str(place)) for part in shlex.split(line)]
    return CliRunner().invoke(app, args, input=stdin)


def check(result, words: str) -> None:
    *before, last = result.stderr.splitlines()
    assert result.exit_code == 2, result.exception
    assert "Traceback" not in result.output
    assert last.startswith("error: ")
    assert not [line for line in before if line.startswith("error")]
    assert len(re.findall(r"\w+", last)) >= 4, "a sentence has words"
    assert words in last
    assert "weights_only" not in last, "nobody is advised to run what a file holds"
    assert len(last) < 600


@pytest.mark.parametrize(("line", "words"), ALL, ids=lambda value: value[:70] if isinstance(value, str) else None)
def test_a_wrong_call_ends_in_one_sentence_and_exit_code_2(place, line, words):
    check(call(place, line), words)


@pytest.mark.parametrize("name", ["rope_list", "multiple_of_0"])
@pytest.mark.parametrize("line", ["info {place}/%s", "generate x {place}/%s --tokenizer tiny"])
def test_a_configuration_of_wrong_types_ends_in_a_sentence(place, line, name):
    check(call(place, line % name), "")


def test_the_table_has_wrong_calls_of_every_command():
    assert len(ALL) >= 100
    assert set(CALLS) == {"top", *(command.callback.__name__ for command in app.registered_commands)}
    assert min(len(cases) for cases in CALLS.values()) >= 3


@pytest.mark.parametrize("line", ["generate -", "chat {place}/mine --tokenizer tiny -n 5"])
def test_standard_input_that_is_not_utf8_ends_in_a_sentence(place, line):
    check(call(place, line, b"Once \xff upon\n"), "UTF-8 text (byte 0xff at position 5)")


def test_a_prompt_with_bytes_that_are_not_utf8_ends_in_a_sentence(place):
    """Python keeps such bytes of an argument as halves of surrogate pairs."""
    check(CliRunner().invoke(app, ["generate", os.fsdecode(b"Once \xff")]), "the prompt is not UTF-8 text")


def test_a_number_that_the_system_cannot_count_to_ends_in_a_sentence(place):
    check(call(place, f"train {{place}}/texts --out {{place}}/out --held-out z.txt --seed {HUGE}"), "")


def test_the_place_of_the_result_is_refused_before_the_work(place, monkeypatch):
    """Not after minutes of measuring or training."""

    def work(*args, **kwargs):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("decoding_llama3.experiments.evaluation.evaluate", work)
    monkeypatch.setattr("decoding_llama3.benchmark.runs.run_engines", work)
    monkeypatch.setattr("decoding_llama3.experiments.training.train", work)
    monkeypatch.setattr("decoding_llama3.experiments.preparation.prepare", work)
    check(call(place, "evaluate {place}/texts --held-out z.txt --out {place}"), "is a folder")
    check(call(place, "bench --json {place}"), "is a folder")
    check(call(place, "train {place}/texts --out {place}/words --held-out z.txt"), "cannot be a folder")
