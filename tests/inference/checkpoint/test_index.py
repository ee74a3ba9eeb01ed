"""Shards and their index: each tensor from the file that the index names, and no file from elsewhere."""

import json
import os
import shutil
import time

import pytest
import torch
from folders import TOKENS, edit_weights, into_shards, load, write_index
from safetensors.torch import load_file, save_file

from decoding_llama3.inference.checkpoint.export import save_huggingface


@pytest.fixture
def whole(model, tmp_path):
    folder = tmp_path / "model"
    save_huggingface(model, folder)
    return folder


@pytest.fixture
def shards(whole):
    into_shards(whole)
    return whole


@pytest.fixture
def shard_of(shards):
    return json.loads((shards / "model.safetensors.index.json").read_text())["weight_map"]


def refuses(folder, words: str) -> None:
    """In one printable sentence, at once."""
    started = time.perf_counter()
    with pytest.raises(ValueError, match=words) as caught:
        load(folder)
    assert str(caught.value).isprintable()
    assert time.perf_counter() - started < 5


def test_shards_load_as_the_whole(model, shards):
    assert torch.equal(load(shards)(TOKENS), model(TOKENS))


def test_an_index_with_a_byte_order_mark_is_read(model, shards):
    index = shards / "model.safetensors.index.json"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    assert torch.equal(load(shards)(TOKENS), model(TOKENS))


def test_shards_may_be_links_out_of_the_folder(model, shards, tmp_path):
    """As the hub's cache has them: snapshots/<hash>/ with links to blobs/."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in shards.iterdir():
        shutil.move(path, blobs / path.name)
        path.symlink_to(os.path.relpath(blobs / path.name, shards))
    assert torch.equal(load(shards)(TOKENS), model(TOKENS))


def test_shards_may_lie_in_a_folder_below(model, shards, shard_of):
    (shards / "weights").mkdir()
    for shard in set(shard_of.values()):
        shutil.move(shards / shard, shards / "weights" / shard)
    write_index(shards, {name: f"weights/{shard}" for name, shard in shard_of.items()})
    assert torch.equal(load(shards)(TOKENS), model(TOKENS))


@pytest.mark.parametrize(
    "name", ["../{}", "weights/../../{}", "{folder}/../{}", "C:\\{}", "..\\{}", "/dev/zero", "", ".", "x" * 300]
)
def test_a_shard_outside_of_the_folder_is_refused_even_if_it_is_there(shards, shard_of, name):
    """The file of a stranger's index could otherwise be any file of the reader's."""
    first = next(iter(shard_of.values()))
    shutil.copy(shards / first, shards.parent / first)
    named = name.format(first, folder=shards)
    write_index(shards, {tensor: named if shard == first else shard for tensor, shard in shard_of.items()})
    refuses(shards, r"names the shard '.*', but a shard lies in its index's folder")


def test_an_escape_code_in_a_shards_name_is_not_printed(shards, shard_of):
    write_index(shards, dict.fromkeys(shard_of, "\x1b[31mred"))
    refuses(shards, r"names the shard '\\x1b\[31mred'")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("file", ["model-00001-of-00002.safetensors", "model.safetensors.index.json"])
def test_what_is_no_file_is_not_opened(shards, file, make):
    """To read a pipe is to wait for ever, to read a device is to go on for ever."""
    (shards / file).unlink()
    make(shards / file)
    refuses(shards, rf"{file} is a folder, a pipe or a device")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_weights_in_one_piece_that_are_no_file_are_not_opened(whole, make):
    (whole / "model.safetensors").unlink()
    make(whole / "model.safetensors")
    refuses(whole, r"model\.safetensors is a folder, a pipe or a device")


def test_a_missing_shard_is_named(shards):
    (shards / "model-00002-of-00002.safetensors").unlink()
    refuses(shards, r"lacks model-00002-of-00002\.safetensors")


def test_a_tensor_in_two_shards_is_refused(shards, shard_of):
    """Even where the index says which: else the last file by name would win."""
    edit_weights(
        shards,
        lambda weights: weights.update({"lm_head.weight": torch.ones(320, 192)}),
        next(shard for shard in set(shard_of.values()) if shard != shard_of["lm_head.weight"]),
    )
    refuses(shards, r"holds 'lm_head\.weight', but .* lists it in")


def test_a_tensor_in_another_shard_than_the_index_says_is_refused(shards, shard_of):
    names = sorted(set(shard_of.values()))
    other = names[1 - names.index(shard_of["lm_head.weight"])]
    write_index(shards, shard_of | {"lm_head.weight": other})
    refuses(shards, r"holds 'lm_head\.weight', but .* lists it in|lists 'lm_head\.weight' in .* does not hold it")


def test_a_tensor_that_no_shard_holds_is_refused(shards, shard_of):
    write_index(shards, shard_of | {"model.layers.2.mlp.up_proj.weight": shard_of["lm_head.weight"]})
    refuses(shards, r"lists 'model\.layers\.2\.mlp\.up_proj\.weight' in '.*', which lacks it")


def test_a_tensor_that_the_index_does_not_list_is_refused(shards, shard_of):
    write_index(shards, {name: shard for name, shard in shard_of.items() if name != "lm_head.weight"})
    refuses(shards, r"holds 'lm_head\.weight', but .* does not list it")


def test_an_index_beside_weights_that_it_does_not_list_is_refused(whole):
    """transformers would take the one, an earlier version of this package took the other, and neither said so."""
    stale = load_file(whole / "model.safetensors")
    into_shards(whole)
    save_file(stale, whole / "model.safetensors")
    refuses(whole, r"holds model\.safetensors and an model\.safetensors\.index\.json that does not list it")


def test_an_index_may_list_weights_in_one_piece(model, whole):
    write_index(whole, dict.fromkeys(load_file(whole / "model.safetensors"), "model.safetensors"))
    assert torch.equal(load(whole)(TOKENS), model(TOKENS))


@pytest.mark.parametrize(
    "index",
    [
        b"not json",
        b"{}",
        b"[1, 2]",
        b'{"weight_map": {}}',
        b'{"weight_map": []}',
        b'{"weight_map": {"lm_head.weight": 5}}',
        b'{"weight_map": {"lm_head.weight": null}}',
        b'{"weight_map": {"lm_head.weight": "a", "lm_head.weight": "b"}}',
        b'{"weight_map": {"a": "b"}, "weight_map": {"a": "c"}}',
        '{"weight_map": {"a": "b"}}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"weight_map": ' + b"9" * 5000 + b"}",
        b'{"weight_map": {"\xff": "a"}}',
    ],
    ids=lambda index: repr(index[:20]),
)
def test_what_is_no_index_is_refused_by_its_path(shards, index):
    (shards / "model.safetensors.index.json").write_bytes(index)
    refuses(shards, r"model\.safetensors\.index\.json (is|holds|sets) ")


def test_an_index_of_a_gigabyte_is_not_read(shards):
    os.truncate(shards / "model.safetensors.index.json", 2**30)
    refuses(shards, "has over 67,108,864 bytes")
