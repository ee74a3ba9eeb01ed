"""The command line, from outside: output, exit codes, one-sentence errors."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from conftest import randomize, shrink
from typer.testing import CliRunner

import decoding_llama3 as dl
from decoding_llama3.cli.commands import app
from decoding_llama3.inference import memory
from decoding_llama3.inference.checkpoint.export import save_huggingface


def run(*args: str, text: str | None = None):
    return CliRunner().invoke(app, args, input=text)


def test_generate_continues_with_the_tokens_of_the_package():
    model, tokenizer = dl.load_model("tiny", dtype=torch.float32), dl.load_tokenizer("tiny")
    ids = tokenizer.encode("Once upon a time", bos=True)
    expected = "Once upon a time" + tokenizer.decode(dl.generate(model, ids, max_new_tokens=12))
    result = run("generate", "Once upon a time", "-n", "12", "--temperature", "0", "--dtype", "float32")
    assert result.exit_code == 0
    assert result.stdout == expected + "\n"


def test_generate_reads_standard_input_and_draws_by_seed():
    args = ("generate", "-", "-n", "8", "--temperature", "1", "--seed", "5")
    first, second = (run(*args, text="There was a king") for _ in range(2))
    assert first.stdout.startswith("There was a king")
    assert first.stdout == second.stdout != run(*args[:-1], "6", text="There was a king").stdout


def test_text_comes_as_it_is_made():
    """Not all at the end: the first words are there while the program still runs."""
    command = [sys.executable, "-m", "decoding_llama3", "generate", "The", "-n", "400", "--temperature", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        first = process.stdout.read(8)
        assert process.poll() is None
        process.kill()
    assert first.startswith(b"The")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("generate", "", "no/such/folder"), "no directory no/such/folder"),
        (("generate", "x", "--dtype", "int4"), "dtype is one of float32"),
        (("generate", "x", "--top-p", "0"), "top_p must be above 0"),
        (("generate", "x " * 600), "the model's context 512"),
        (("generate", "x", "--quantize", "int2"), "found 'int2'"),
        (("generate", "x", "--tokenizer", "llama3"), "has 128256 tokens, but the model in"),
        (("chat", "tiny"), "has never seen a chat"),
        (("info", "llama9"), "no preset and no directory is called llama9"),
        (("train", "no-folder", "--out", "x", "--held-out", "y.txt"), "there is no folder no-folder"),
        (("prepare", "x", "--out", "y", "--ranges", "none.csv", "--words", "z"), "there is no file z"),
        (("evaluate", "x", "--held-out", "y.txt", "--words", "none.txt"), "there is no folder x"),
        (("bench", "tiny", "--random", "125m"), "found a checkpoint (tiny) and --random 125m"),
        (("bench", "--random", "7b"), "no preset is called '7b'"),
        (("bench", "--prompts", "128;512"), "--prompts are whole numbers with commas between"),
        (("bench", "--contexts", "4096"), "none of the contexts 4096 fits: take 445 tokens or fewer"),
        (("bench", "--engines", "warp"), "no engine is called 'warp'"),
        (("bench", "--against", "vllm"), "no baseline is called 'vllm'"),
        (("bench", "--json", "no-folder/x.json"), "--json no-folder/x.json lies in no folder there is"),
        (("bench", "--ladder", "--scaling"), "found --ladder and --scaling: give one of the two"),
        (("bench", "--dtype", "int4"), "dtype is one of float32"),
        (("ablate", "norms"), "no group of variants is called 'norms'"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(args, words):
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_what_fits_in_no_wider_way_is_generated_with_in_int8(monkeypatch):
    """Unless a dtype is named: then that, or a sentence."""
    needed = memory.needed_bytes(dl.LlamaConfig.from_preset("tiny"), torch.float32)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    result = run("generate", "There was", "-n", "3", "--device", "cpu")
    assert result.exit_code == 0
    assert "tiny: int8, computed in float32, on cpu" in result.stderr
    result = run("generate", "There was", "-n", "3", "--device", "cpu", "--dtype", "float32")
    assert result.exit_code == 2
    assert "use quantize='int8'" in result.stderr
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    assert "tiny: float32 on cpu" in run("generate", "There was", "-n", "3", "--device", "cpu").stderr


@pytest.fixture
def instruct(tmp_path):
    config = shrink("llama3-8b")
    vocab_size = dl.load_tokenizer("llama3").n_vocab
    config = type(config)(**{**vars(config), "vocab_size": vocab_size})
    save_huggingface(randomize(dl.Transformer(config)), tmp_path)
    return tmp_path


def test_chat_answers_until_an_empty_line(instruct):
    args = ("chat", str(instruct), "--tokenizer", "llama3", "-n", "5", "--seed", "1", "--system", "Be brief.")
    result = run(*args, text="Hello\nAnd now?\n\n")
    assert result.exit_code == 0
    assert result.stderr.count("you:") == 3


def test_chat_needs_the_tokenizer(instruct):
    result = run("chat", str(instruct))
    assert result.exit_code == 2
    assert "no tokenizer.model" in result.stderr


def test_texts_are_prepared_and_a_model_of_another_shape_is_trained_on_them(folder, tmp_path):
    """From a folder to a checkpoint that generates, in the shape of the directory given."""
    (tmp_path / "ranges.csv").write_text("file,first,last\na.txt,2,119\nz.txt,1,6\n")
    (tmp_path / "words.txt").write_text("golden apple\n")
    lists = ("--ranges", f"{tmp_path}/ranges.csv", "--words", f"{tmp_path}/words.txt")
    prepared = run("prepare", str(folder), "--out", f"{tmp_path}/prepared", *lists)
    assert prepared.exit_code == 0
    assert "2 files" in prepared.stderr
    shape = dataclasses.replace(shrink("llama3-8b"), vocab_size=524, max_seq_len=64)
    save_huggingface(randomize(dl.Transformer(shape)), tmp_path / "shape")
    settings = ("--config", f"{tmp_path}/shape", "--steps", "2", "--batch", "2", "--seq-len", "16")
    trained = run("train", f"{tmp_path}/prepared", "--out", f"{tmp_path}/mine", "--held-out", "z.txt", *settings)
    assert trained.exit_code == 0, trained.stderr
    result = run("generate", "the king", f"{tmp_path}/mine", "-n", "5")
    assert result.exit_code == 0
    assert dl.load_model(tmp_path / "mine", dtype=torch.float32).config.dim == shape.dim
