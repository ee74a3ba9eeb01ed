"""What is asked of a file before it is opened."""

import os

import pytest

from decoding_llama3.inference.checkpoint import index, shard
from decoding_llama3.inference.checkpoint.untrusted import check_file


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="is a folder, a pipe or a device, but a file was expected"):
        check_file(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_opened(tmp_path):
    """To open it is to wait for somebody who writes: here its other end is open, so that a fault ends at once."""
    os.mkfifo(tmp_path / "pipe")
    other_end = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    os.write(other_end, b"x" * 64)
    try:
        with pytest.raises(ValueError, match="is a folder, a pipe or a device"):
            check_file(tmp_path / "pipe")
    finally:
        os.close(other_end)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"\n <!DOCTYPE html><html>", "is a web page in place of the file"),
        (b"<HTML>", "is a web page in place of the file"),
    ],
)
def test_what_lies_there_in_place_of_a_file_is_named(tmp_path, content, words):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        check_file(tmp_path / "model.safetensors")


def test_a_file_that_is_not_there_is_told_by_its_folder(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path.name} lacks a\.gguf: download the checkpoint again"):
        check_file(tmp_path / "a.gguf")


def test_a_file_may_be_as_large_as_its_limit_and_no_larger(tmp_path, monkeypatch):
    text = '{"weight_map": {"a": "b"}}'
    (tmp_path / "i.json").write_text(text)
    monkeypatch.setattr(index, "LARGEST", len(text))
    assert index.read_index(tmp_path / "i.json") == {"a": "b"}
    monkeypatch.setattr(index, "LARGEST", len(text) - 1)
    with pytest.raises(ValueError, match=rf"has over {len(text) - 1} bytes"):
        index.read_index(tmp_path / "i.json")
    (tmp_path / "s.safetensors").write_bytes((100).to_bytes(8, "little") + b"{}")
    for limit, words in ((100, "no safetensors file"), (99, "its header would have 100 bytes")):
        monkeypatch.setattr(shard, "LARGEST_HEADER", limit)
        with pytest.raises(ValueError, match=words) as caught:
            shard.open_shard(tmp_path / "s.safetensors")
        assert ("would have" in str(caught.value)) == (limit == 99)
