"""Broken and hostile checkpoints in Meta's layout and in GGUF: each changes one thing in a good one."""

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch

Build = Callable[[Path], object]
PART, OTHER = "consolidated.00.pth", "consolidated.01.pth"
QUERY = "layers.0.attention.wq.weight"


def params(**changes) -> Build:
    def build(folder: Path) -> None:
        values = json.loads((folder / "params.json").read_text()) | changes
        (folder / "params.json").write_text(json.dumps(values))

    return build


def part(change: Callable[[dict], object], name: str = PART) -> Build:
    def build(folder: Path) -> None:
        tensors = torch.load(folder / name)
        new = change(tensors)
        torch.save(tensors if new is None else new, folder / name)

    return build


def parts(change: Callable[[Path], object] = lambda _: None) -> Build:
    """Cut in two as Meta's trainer does, each matrix along its own axis; then `change`."""

    def build(folder: Path) -> None:
        axes = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "tok_embeddings": 0, "wo": 1, "w2": 1}
        tensors = torch.load(folder / PART)
        for i, name in enumerate((PART, OTHER)):
            halves = {}
            for key, weight in tensors.items():
                axis = axes.get(key.split(".")[-2])
                halves[key] = weight.clone() if axis is None else weight.chunk(2, axis)[i].clone()
            torch.save(halves, folder / name)
        change(folder)

    return build


class Code:
    def __reduce__(self):
        return os.system, ("true",)


def compressed(folder: Path) -> None:
    with zipfile.ZipFile(folder / PART) as old, zipfile.ZipFile(folder / "x", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    (folder / "x").rename(folder / PART)


def exchanged(folder: Path) -> None:
    (folder / PART).rename(folder / "x")
    (folder / OTHER).rename(folder / PART)
    (folder / "x").rename(folder / OTHER)


def encoded(encoding: str) -> Build:
    return lambda folder: (folder / "params.json").write_bytes(
        (folder / "params.json").read_text().encode(encoding)
    )


def raw(change: Callable[[bytes], bytes], name: str) -> Build:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


META: dict[str, Build] = {
    "params.json in UTF-16": encoded("utf-16"),
    "params.json with a byte order mark": encoded("utf-8-sig"),
    "params.json with dim as text": params(dim="48"),
    "params.json with multiple_of 0": params(multiple_of=0),
    "params.json with a key of another architecture": params(moe={"num_experts": 8}),
    "n_heads that does not divide dim": params(n_heads=7),
    "fewer key/value heads than wk has": params(n_kv_heads=1),
    "twice the heads, so another head_dim": params(n_heads=12),
    "an ffn_dim_multiplier of another model": params(ffn_dim_multiplier=2.0),
    "vocab_size of another model": params(vocab_size=4000),
    "one layer more than the files have": params(n_layers=3),
    "use_scaled_rope without known widths": params(use_scaled_rope=True),
    "a tensor is missing": part(
        lambda t: t.update({QUERY: None}) or {k: w for k, w in t.items() if w is not None}
    ),
    "a tensor too many": part(lambda t: t.update({"layers.0.attention.bias": torch.ones(48)})),
    "names of Hugging Face in a .pth": part(lambda t: {f"model.{name}": weight for name, weight in t.items()}),
    "weights one level down, under 'model'": part(lambda t: {"model": dict(t)}),
    "weights in a list": part(lambda t: list(t.values())),
    "names that are numbers": part(lambda t: dict(enumerate(t.values()))),
    "one matrix in int8": part(lambda t: t.update({QUERY: t[QUERY].to(torch.int8)})),
    "one matrix in float64": part(lambda t: t.update({QUERY: t[QUERY].double()})),
    "a sparse matrix": part(lambda t: t.update({QUERY: t[QUERY].to_sparse()})),
    "a NaN among the weights": part(lambda t: t[QUERY].__setitem__((3, 5), float("nan"))),
    "a matrix that repeats one row": part(lambda t: t.update({QUERY: torch.ones(1, 48).expand(48, 48)})),
    "a .pth that runs code": part(lambda t: t | {"x": Code()}),
    "a .pth that is compressed": compressed,
    "a .pth cut off": raw(lambda content: content[:-5000], PART),
    "a .pth that is a safetensors file": lambda folder: shutil.copy(
        folder.parent / "model.safetensors", folder / PART
    ),
    "a .pth that is a text": raw(lambda _: b"version https://git-lfs.github.com/spec/v1\noid x\n", PART),
    "a .pth that links to /dev/zero": lambda folder: (
        (folder / PART).unlink(),
        os.symlink("/dev/zero", folder / PART),
    ),
    "the second of two parts is missing": parts(lambda folder: (folder / OTHER).unlink()),
    "the first of two parts is missing": parts(lambda folder: (folder / PART).unlink()),
    "two parts exchanged": parts(exchanged),
    "the same part twice": parts(lambda folder: shutil.copy(folder / PART, folder / OTHER)),
    "parts of two dtypes": parts(part(lambda t: {name: weight.double() for name, weight in t.items()}, OTHER)),
    "norms that differ between parts": parts(
        part(lambda t: t.update({"norm.weight": t["norm.weight"] + 1}), OTHER)
    ),
    "a part beside, of another name": lambda folder: shutil.copy(folder / PART, folder / "consolidated.0.pth"),
}


def again(**changes) -> Build:
    """The GGUF file written anew with settings of its own; None leaves one out."""

    def build(folder: Path) -> None:
        write_gguf(folder / "model.gguf", torch.load(folder / "weights"), changes)

    return build


def with_tensors(change: Callable[[dict], object]) -> Build:
    def build(folder: Path) -> None:
        tensors = torch.load(folder / "weights")
        change(tensors)
        write_gguf(folder / "model.gguf", tensors, {})

    return build


def write_gguf(path: Path, tensors: dict[str, torch.Tensor], changes: dict) -> None:
    """A Llama of two layers without a tokenizer, `changes` by the ends of the names of settings."""
    settings = {
        "block_count": 2,
        "context_length": 64,
        "embedding_length": 48,
        "feed_forward_length": 96,
        "attention.head_count": 6,
        "attention.head_count_kv": 3,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10_000.0,
        "rope.dimension_count": 8,
        "vocab_size": 4096,
        **{name: value for name, value in changes.items() if "general" not in name and "split" not in name},
    }
    writer = gguf.GGUFWriter(path, changes.get("general.architecture", "llama"))
    for name, value in settings.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add |= {str: writer.add_string, list: writer.add_array}
        if value is not None:
            add[type(value)](f"llama.{name}", value)
    for name, value in changes.items():
        if name.startswith("split"):
            writer.add_uint16(name, value)
    for name, weight in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(weight.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_bytes(change: Callable[[bytearray], object]) -> Build:
    def edit(content: bytes) -> bytes:
        edited = bytearray(content)
        new = change(edited)
        return bytes(edited if new is None else new)

    return raw(edit, "model.gguf")


def overwrite(start: int, form: str, value: int) -> Build:
    return gguf_bytes(lambda content: struct.pack_into(form, content, start, value))


def second_half(tensors: dict) -> None:
    for name in [name for name in tensors if name.startswith("blk.1.")]:
        del tensors[name]


FIRST = "blk.0.attn_q.weight"
GGUF: dict[str, Build] = {
    "another architecture": again(**{"general.architecture": "qwen2"}),
    "the first of two files of a split model": again(
        **{"split.no": 0, "split.count": 2, "split.tensors.count": 21}
    ),
    "half of the layers in a split model": lambda folder: (
        with_tensors(second_half)(folder),
        (folder / "model.gguf").rename(folder / "model-00001-of-00002.gguf"),
    ),
    "one layer more than the file has": again(block_count=3),
    "one layer fewer than the file has": again(block_count=1),
    "no head count": again(**{"attention.head_count": None}),
    "a head count for each layer": again(**{"attention.head_count_kv": [3, 1]}),
    "no context": again(context_length=0),
    "eight experts": again(expert_count=8),
    "key_length against the shape of attn_q": again(**{"attention.key_length": 16}),
    "vocab_size against the rows of the embedding": again(vocab_size=4000),
    "epsilon 0": again(**{"attention.layer_norm_rms_epsilon": 0.0}),
    "YaRN": again(**{"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}),
    "a setting that nobody knows": again(logit_scale=2.0),
    "a bias": with_tensors(lambda t: t.update({"blk.0.attn_q.bias": torch.ones(48)})),
    "a matrix of integers": with_tensors(lambda t: t.update({FIRST: t[FIRST].to(torch.int32)})),
    "a matrix of another shape": with_tensors(lambda t: t.update({FIRST: torch.zeros(48, 40)})),
    "a NaN among the weights": with_tensors(lambda t: t[FIRST].__setitem__((3, 5), float("nan"))),
    "rope_freqs of NaN": with_tensors(lambda t: t.update({"rope_freqs.weight": torch.full((4,), float("nan"))})),
    "rope_freqs of zeros": with_tensors(lambda t: t.update({"rope_freqs.weight": torch.zeros(4)})),
    "names of Hugging Face": with_tensors(lambda t: t.update({"model.norm.weight": t.pop("output_norm.weight")})),
    "no embedding": with_tensors(lambda t: t.pop("token_embd.weight")),
    "cut off among the weights": gguf_bytes(lambda content: content[:-3000]),
    "cut off in the header": gguf_bytes(lambda content: content[:300]),
    "version 1": overwrite(4, "<I", 1),
    "written for a big-endian machine": overwrite(4, ">I", 3),
    "2**60 tensors": overwrite(8, "<Q", 2**60),
    "2**60 settings": overwrite(16, "<Q", 2**60),
    "no tensors at all": overwrite(8, "<Q", 0),
    "a setting's name of 2**50 bytes": overwrite(24, "<Q", 2**50),
    "a ZIP archive under the name of a GGUF": gguf_bytes(lambda content: b"PK\3\4" + bytes(content[4:])),
    "a web page under the name of a GGUF": gguf_bytes(lambda _: b"<html>sign in</html>"),
    "an empty file": gguf_bytes(lambda _: b""),
    "two tensors of one name": gguf_bytes(
        lambda content: bytes(content).replace(b"blk.1.attn_q.weight", b"blk.0.attn_q.weight")
    ),
    "two settings of one name": gguf_bytes(
        lambda content: bytes(content).replace(b"llama.rope.freq_base", b"llama.context_length", 1)
    ),
}
