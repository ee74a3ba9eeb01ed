"""Checkpoints to test with, written as others write them, and ways to change what is in them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import decoding_llama3 as dl

PARAMS = {
    "dim": 192,
    "n_layers": 2,
    "n_heads": 12,
    "n_kv_heads": 3,
    "vocab_size": 320,
    "multiple_of": 16,
    "ffn_dim_multiplier": 0.3,
    "norm_eps": 1e-5,
    "rope_theta": 500_000.0,
}
META_NAMES = {"w_gate": "w1", "w_down": "w2", "w_up": "w3"}
TOKENS = torch.arange(2 * 23).view(2, 23)


def load(path, **options) -> dl.Transformer:
    return dl.load_model(path, dtype=torch.float32, **options)


def save_meta(model: dl.Transformer, path, parts: int = 1, embedding_axis: int = 0, params: dict | None = None):
    """As Meta's trainer leaves it: every matrix cut along the axis that its parallel layer splits."""
    (path / "params.json").write_text(json.dumps(params or PARAMS))
    axes = {"wq": 0, "wk": 0, "wv": 0, "w_gate": 0, "w_up": 0, "output": 0, "wo": 1, "w_down": 1}
    axes["tok_embeddings"] = embedding_axis  # 1 in Llama 2, 0 in Llama 3
    for i in range(parts):
        part = {}
        for name, weight in model.state_dict().items():
            stem = name.split(".")[-2]
            slices = weight.chunk(parts, dim=axes[stem]) if stem in axes else [weight] * parts
            part[name.replace(stem, META_NAMES.get(stem, stem))] = slices[i].clone()
        part["rope.freqs"] = torch.ones(8)  # Meta's files carry the table along
        torch.save(part, path / f"consolidated.{i:02d}.pth")


def edit_weights(folder: Path, change, file: str = "model.safetensors") -> None:
    """`change` gets the tensors of a safetensors file by name, and may change the dictionary."""
    weights = load_file(folder / file)
    change(weights)
    save_file(weights, folder / file)


def edit_part(folder: Path, change, part: int = 0) -> None:
    """The same for one of Meta's parts."""
    path = folder / f"consolidated.{part:02d}.pth"
    weights = torch.load(path)
    change(weights)
    torch.save(weights, path)


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def into_shards(folder: Path, n: int = 2) -> dict[str, str]:
    """model.safetensors cut into `n` shards with an index, which is returned."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shard_of = {name: f"model-{i % n + 1:05d}-of-{n:05d}.safetensors" for i, name in enumerate(sorted(weights))}
    for shard in set(shard_of.values()):
        save_file({name: weights[name] for name in weights if shard_of[name] == shard}, folder / shard)
    write_index(folder, shard_of)
    return shard_of


def write_index(folder: Path, shard_of) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
