"""An index of shards, changed at random: the model loads as it was, or one ValueError of ours says why not."""

import json
import os
import random

import pytest
import torch
from attempt import TIMES, attempt
from safetensors.torch import load_file, save_file

import decoding_llama3 as dl
from decoding_llama3.inference.checkpoint.export import save_huggingface

SMALL = dl.LlamaConfig(dim=8, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=8, vocab_size=8)
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
NAMES = ["/dev/zero", "/etc/passwd", "../x", "a/../b", "pipe", "folder", "", ".", "..", "C:\\x"]
NAMES += ["\0", "\x1b[31m", "x" * 5000, "é", "\ud800", "config.json", "other.safetensors", *SHARDS]
ODDITIES = [None, True, 5, 0.5, 10**30, [], {}, [[]], {"weight_map": {}}, *NAMES]


def change_text(draw: random.Random, text: str) -> bytes:
    content = bytearray(text.encode())
    place = draw.randrange(len(content))
    kind = draw.randrange(6)
    if kind == 0:
        return bytes(content[:place])
    if kind == 1:
        return text.encode(draw.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"]))
    if kind == 2:
        return bytes(
            content[:place] + draw.choice([b"[", b'{"a":', b"9", b" ", b"\\u"]) * 20_000 + content[place:]
        )
    if kind == 3:
        return (text[:-1] + f', "weight_map": {{"a": {json.dumps(draw.choice(NAMES))}}}}}').encode()
    for _ in range(draw.choice([1, 1, 3])):
        content[draw.randrange(len(content))] = draw.choice([draw.randrange(256), ord('"'), ord("/"), ord(".")])
    return bytes(content)


def change_map(draw: random.Random, index: dict) -> None:
    shard_of = index["weight_map"]
    name = draw.choice(list(shard_of))
    kind = draw.randrange(6)
    if kind == 0:
        shard_of[name] = draw.choice(ODDITIES)
    elif kind == 1:
        shard_of[draw.choice([*NAMES, name + "x", name.replace("0", "1")])] = draw.choice(NAMES)
    elif kind == 2:
        del shard_of[name]
    elif kind == 3:
        index["weight_map"] = draw.choice([*ODDITIES, {key: draw.choice(NAMES) for key in shard_of}])
    elif kind == 4:
        index["metadata"] = draw.choice(ODDITIES)
    else:
        index["weight_map"] = {
            key: SHARDS[0] if shard == SHARDS[1] else SHARDS[1] for key, shard in shard_of.items()
        }


def mutate(draw: random.Random, index: dict) -> bytes:
    if draw.random() < 0.4:
        return change_text(draw, json.dumps(index))
    index = json.loads(json.dumps(index))
    for _ in range(draw.choice([1, 1, 2])):
        if isinstance(index["weight_map"], dict) and index["weight_map"]:
            change_map(draw, index)
    return json.dumps(index).encode()


@pytest.fixture
def folder(tmp_path):
    save_huggingface(dl.Transformer(SMALL), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    shard_of = {name: SHARDS[i % 2] for i, name in enumerate(weights)}
    for shard in SHARDS:
        save_file({name: weights[name] for name in weights if shard_of[name] == shard}, tmp_path / shard)
    save_file({"lm_head.weight": torch.ones(8, 8)}, tmp_path / "other.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    (tmp_path / "folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.long
def test_no_index_breaks_the_loader_or_changes_the_model(folder):
    """Where it loads, every weight is that of the right index."""
    file = folder / "model.safetensors.index.json"
    index, loaded = json.loads(file.read_text()), 0
    right = dl.load_model(folder, dtype=torch.float32).state_dict()
    for seed in range(TIMES):
        file.write_bytes(mutate(random.Random(seed), index))
        found = attempt(folder, seed)
        if found is not None:
            assert all(torch.equal(found[name], right[name]) for name in right), seed
            loaded += 1
    assert 0 < loaded < TIMES / 2
