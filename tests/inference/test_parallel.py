"""A model shared by processes: the same logits, texts and errors as in one, a share of the memory in each."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint.folders import PARAMS, save_meta
from checkpoint.gguf_files import write_gguf
from conftest import randomize, shrink
from one_of_several import all_logits, texts, weight_bytes
from safetensors.torch import load_file, save_file
from torch import Tensor

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface
from decoding_llama3.inference.parallel import narrow_config
from decoding_llama3.inference.ranks import Ranks, find_ranks

HERE = Path(__file__).parent
SECONDS = 240  # a machine may be busy; processes that wait for each other for ever fail all the same
# Two layers; heads wider than dim / n_heads; a vocabulary that no number of processes divides; scaled RoPE, tied.
OTHER = dataclasses.replace(shrink("llama3.2-1b"), n_heads=8, n_kv_heads=4, vocab_size=323)


def start(world: int, command: list[str], **environment: str) -> list[subprocess.CompletedProcess]:
    """What torchrun does, without its own five seconds; a process that hangs is killed, and fails the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    place["PYTHONPATH"] = str(HERE.parent.parent)
    running = []
    for i in map(str, range(world)):
        ranks = {"RANK": i, "LOCAL_RANK": i, "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=os.environ | place | ranks | environment, **pipes))
    try:
        ended = [process.communicate(timeout=SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    return [subprocess.CompletedProcess(p.args, p.returncode, *o) for p, o in zip(running, ended, strict=True)]


def share(world: int, path: Path | str, out: Path, **job) -> list[tuple[dict, dict[str, Tensor]]]:
    """The figures and logits of each process that shares the checkpoint `path`."""
    command = [sys.executable, str(HERE / "one_of_several.py"), json.dumps({"path": str(path)} | job), str(out)]
    freed_at_once = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    for ended in start(world, command, **freed_at_once):
        assert ended.returncode == 0, ended.stderr
    files = [(out / f"{i}.json", out / f"{i}.safetensors") for i in range(world)]
    return [(json.loads(figures.read_text()), load_file(logits)) for figures, logits in files]


def check_equal(path: Path | str, found: list[tuple[dict, dict[str, Tensor]]]) -> None:
    """Logits, texts and bytes beside those of one process."""
    one = dl.load_model(path, dtype=torch.float32)
    with torch.inference_mode():
        expected = all_logits(one)
    for figures, logits in found:
        for name, numbers in expected.items():
            assert (logits[name] - numbers).abs().max() < 1e-5 * max(1.0, numbers.abs().max())
            assert torch.equal(logits[name], found[0][1][name]), "bit for bit, or a seed draws another token"
        assert {name: figures[name] for name in ("greedy", "drawn")} == texts(one)
        assert figures["from_first"] == "said by 0"
        assert figures["cache"] == [1, one.config.n_kv_heads // len(found), 16, one.config.head_dim]
        norms = sum(weight.nbytes for weight in one.parameters() if weight.dim() == 1)
        rows = 8 * one.config.dim  # of embedding and output one row, where the vocabulary does not divide
        assert abs(figures["bytes"] - norms - (weight_bytes(one) - norms) / len(found)) <= rows
        assert figures["largest"] <= max(w.nbytes for w in one.parameters()) / len(found) + rows


def test_two_processes_are_one(tmp_path):
    check_equal("tiny", share(2, "tiny", tmp_path))


@pytest.fixture
def other(tmp_path) -> Path:
    save_huggingface(randomize(dl.Transformer(OTHER)), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.long
@pytest.mark.parametrize("world", [2, 4])
def test_another_shape_is_shared_as_pytorch_shares_it(other, tmp_path, world):
    found = share(world, other, tmp_path, pytorch=True)
    check_equal(other, found)
    for _, logits in found:
        for name in ("whole", "cached"):
            assert (logits[name] - logits[f"pytorch {name}"]).abs().max() < 1e-5 * logits[name].abs().max()


@pytest.mark.long
def test_a_checkpoint_in_shards_is_shared(other, tmp_path):
    weights = load_file(other / "model.safetensors")
    (other / "model.safetensors").unlink()
    names = sorted(weights)
    shard_of = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(names)}
    for shard in set(shard_of.values()):
        save_file({name: weights[name] for name in names if shard_of[name] == shard}, other / shard)
    (other / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    check_equal(other, share(4, other, tmp_path))


@pytest.mark.long
def test_parts_of_metas_are_shared(tmp_path):
    """Four parts for two processes, and an output that is not the embedding."""
    params = PARAMS | {"n_kv_heads": 6}
    config = dl.LlamaConfig.from_params_json(json.dumps(params))
    save_meta(randomize(dl.Transformer(config)), tmp_path, 4, 1, params)
    check_equal(tmp_path, share(2, tmp_path, tmp_path))


@pytest.mark.long
@pytest.mark.parametrize(("kind", "world"), [("F16", 2), ("Q8_0", 4), ("Q4_1", 2)])
def test_a_gguf_file_is_shared(kind, world, tmp_path):
    """Of quantised matrices each process takes its rows, or columns that no block of 32 need end at."""
    shape = {"dim": 256, "n_layers": 2, "n_heads": 8, "n_kv_heads": 4, "hidden_dim": 320, "vocab_size": 323}
    config = dataclasses.replace(shrink("llama3-8b"), **shape)
    write_gguf(randomize(dl.Transformer(config)), tmp_path / "model.gguf", kind)
    check_equal(tmp_path / "model.gguf", share(world, tmp_path / "model.gguf", tmp_path))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process's peak memory")
def test_no_process_ever_holds_more_than_its_share(tmp_path):
    """Stored in another dtype, so that nothing can stay in the file; 40 MB are for what torch loads as it goes."""
    shape = {"dim": 512, "n_layers": 24, "n_heads": 8, "n_kv_heads": 4, "hidden_dim": 2048, "vocab_size": 512}
    save_huggingface(randomize(dl.Transformer(dl.LlamaConfig(**shape))), tmp_path / "model", torch.bfloat16)
    for figures, _ in share(4, tmp_path / "model", tmp_path):
        assert 90e6 < figures["bytes"] < 100e6
        assert figures["peak"] < 1.1 * figures["bytes"] + 40e6


@pytest.mark.long
def test_int8_is_shared(other, tmp_path):
    found = share(2, other, tmp_path, quantize="int8")
    one = dl.load_model(other, dtype=torch.float32, quantize="int8")
    with torch.inference_mode():
        exact = all_logits(dl.load_model(other, dtype=torch.float32))["whole"]
        off = (all_logits(one)["whole"] - exact).norm()
    for figures, logits in found:
        assert (logits["whole"] - exact).norm() < 1.2 * off
        assert torch.equal(logits["whole"], found[0][1]["whole"])
        assert figures["bytes"] < 0.55 * weight_bytes(one)


@pytest.mark.long
def test_bfloat16_is_shared(other, tmp_path):
    found = share(2, other, tmp_path, dtype="bfloat16")
    with torch.inference_mode():
        exact = all_logits(dl.load_model(other, dtype=torch.float32))["whole"]
        off = (all_logits(dl.load_model(other, dtype=torch.bfloat16))["whole"] - exact).norm()
    assert (found[0][1]["whole"] - exact).norm() < 1.5 * off


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"n_heads": 12, "n_kv_heads": 6},
            "cannot share the model's 6 key/value heads evenly: .* 1, 2 ",
        ),
        ({"hidden_dim": 178}, "cannot share the model's 178 features .* evenly: .* 1, 2 "),
    ],
)
def test_what_does_not_divide_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        narrow_config(dataclasses.replace(OTHER, **changes), Ranks(0, 4, 0, 4))


def test_the_shares_of_all_processes_are_the_whole():
    shares = [Ranks(i, 4).own(323) for i in range(4)]
    assert [row for own in shares for row in own] == list(range(323))
    assert {len(own) for own in shares} == {80, 81}


@pytest.mark.parametrize(
    "changes", [{"RANK": "two"}, {"RANK": "2"}, {"LOCAL_RANK": ""}, {"WORLD_SIZE": "-2"}, {"MASTER_PORT": None}]
)
def test_an_environment_that_torchrun_did_not_make_is_told(monkeypatch, changes):
    whole = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (whole | {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"} | changes).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"not as torchrun does .*start them with `torchrun"):
        find_ranks()
    monkeypatch.undo()
    assert find_ranks() == Ranks()
