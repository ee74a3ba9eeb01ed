"""One safetensors file: cut, empty, or something else under its name."""

import os

import pytest
from folders import load

from decoding_llama3.inference.checkpoint import shard
from decoding_llama3.inference.checkpoint.export import save_huggingface

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a2146' * 8}\nsize 16060556376\n"


@pytest.fixture
def file(model, tmp_path):
    save_huggingface(model, tmp_path)
    return tmp_path / "model.safetensors"


def test_a_download_cut_short_is_refused_by_its_path(file):
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .* download it again"):
        load(file.parent)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: download it again"),
        (POINTER.encode(), r"is a pointer of Git LFS .* `git lfs pull`"),
        (b"<!DOCTYPE html>\n<html><title>Sign in</title></html>", "is a web page .* `hf download`"),
        (b"\n<html lang='en'>", "is a web page"),
        (b"12", r"is damaged or no safetensors file .*: download it again"),
        (b"\xff" * 100, r"its header would have 18,446,744,073,709,551,615 bytes"),
        ((2**27).to_bytes(8, "little") + b" " * 100, r"its header would have 134,217,728 bytes"),
        (b"\x02\0\0\0\0\0\0\0{}", "holds no|lacks"),
    ],
    ids=["empty", "pointer", "page", "page without doctype", "short", "ones", "long header", "no tensors"],
)
def test_what_is_no_safetensors_file_is_named(file, content, words):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load(file.parent)


def test_what_a_header_says_reaches_no_terminal(file):
    header = b'{"a": {"dtype": "\\u001b[31mred", "shape": [], "data_offsets": [0, 0]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="is damaged") as caught:
        load(file.parent)
    assert str(caught.value).isprintable()


def test_a_file_cut_short_while_it_is_read_leaves_nothing(file, monkeypatch):
    map_file, calls = shard.map_shard, []

    def map_then_cut(path):
        calls.append(path)
        if len(calls) == 5:
            os.truncate(path, path.stat().st_size // 2)
        return map_file(path)

    monkeypatch.setattr(shard, "map_shard", map_then_cut)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .* download it again"):
        load(file.parent, quantize="int8")
    assert len(calls) == 5
