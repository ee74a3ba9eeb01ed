"""One `.pth` file: plain tensors by name, or a sentence; never code, never more memory than the file is large."""

import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import randomize
from folders import PARAMS, TOKENS, edit_part, load, save_meta

import decoding_llama3 as dl

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak memory so")


@pytest.fixture
def meta_model() -> dl.Transformer:
    return randomize(dl.Transformer(dl.LlamaConfig.from_params_json(json.dumps(PARAMS))))


@pytest.fixture
def file(meta_model, tmp_path):
    save_meta(meta_model, tmp_path)
    return tmp_path / "consolidated.00.pth"


def refuses(file: Path, words: str) -> None:
    """In one printable sentence of ours, at once, with no advice to switch the check off."""
    started = time.perf_counter()
    with pytest.raises(ValueError, match=words) as caught:
        load(file.parent)
    assert time.perf_counter() - started < 5
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    assert "weights_only" not in message
    assert "torch.load" not in message


class Trap:
    """Unpickled, it makes a file; a pickle can run any command."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


MORE = r"holds more than tensors and is refused: it may run code; get the checkpoint from its original source, or"


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_with_code_is_refused_and_not_run(file, protocol, tmp_path):
    torch.save({"norm.weight": Trap(tmp_path / "sprung")}, file, pickle_protocol=protocol)
    refuses(file, MORE)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("value", [torch.nn.Linear(2, 2), torch.device("cpu"), bytearray(5), {1, 2}])
def test_what_is_more_than_tensors_is_refused_even_where_torch_would_read_it(file, value):
    torch.save({"norm.weight": torch.ones(3), "more": value}, file)
    refuses(file, MORE)


def test_a_pickle_that_asks_for_gigabytes_is_refused(file):
    """Of 100 bytes, which torch reads as harmless: bytearray(10**11)."""

    class Large:
        def __reduce__(self):
            return bytearray, (10**11,)

    torch.save({"norm.weight": Large()}, file)
    refuses(file, MORE)


@pytest.mark.parametrize("version", ["2.6.0", "2.9.1+cu128", "2.10.0a0"])
def test_an_older_torch_is_not_trusted_with_a_pickle(file, version, monkeypatch):
    """CVE-2026-24747: before 2.10, a crafted file could run code even when weights alone were read."""
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ValueError, match=r"install torch 2\.10 or newer, or use the safetensors version"):
        load(file.parent)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0"])
def test_a_newer_torch_is(file, version, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    load(file.parent)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda: torch.ones(192).to_sparse(), "holds sparse tensors"),
        (lambda: torch.ones(192, 192).to_sparse_csr(), "holds sparse tensors"),
        (lambda: torch.empty(192, device="meta"), "holds empty tensors"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "holds nested tensors"),
        (lambda: torch.quantize_per_tensor(torch.ones(192), 0.1, 0, torch.qint8), "holds quantised tensors"),
        (lambda: torch.ones(192).to(torch.float8_e4m3fn), r"quantised"),
        (lambda: torch.ones(192, dtype=torch.int8), r"'norm\.weight' as torch\.int8, and quantised weights"),
        (lambda: torch.ones(192, dtype=torch.complex64), r"'norm\.weight' as torch\.complex64"),
        (lambda: torch.ones(1).expand(192), r"has 'norm\.weight' of 768 bytes in 4, which repeat"),
        (lambda: torch.tensor(1.0), r"'norm\.weight' of shape \(\)"),
    ],
    ids=["sparse", "csr", "meta", "nested", "quantised", "float8", "int8", "complex", "expanded", "0-d"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch's, of such tensors
def test_a_tensor_that_is_no_weight_is_named(file, tensor, words):
    edit_part(file.parent, lambda weights: weights.update({"norm.weight": tensor()}))
    refuses(file, words)


def test_parameters_are_tensors_too(file, meta_model):
    edit_part(file.parent, lambda weights: weights.update({k: torch.nn.Parameter(v) for k, v in weights.items()}))
    assert torch.equal(load(file.parent)(TOKENS), meta_model(TOKENS))


def test_a_state_dict_with_its_versions_is_read(file, meta_model):
    """torch.save(model.state_dict()) carries an attribute along, `_metadata`."""
    weights = torch.nn.Linear(1, 1).state_dict()
    weights.clear()
    weights.update(torch.load(file))
    torch.save(weights, file)
    assert torch.equal(load(file.parent)(TOKENS), meta_model(TOKENS))


@pytest.mark.parametrize("key", [5, ("norm", "weight"), None, 1.5])
def test_a_name_that_is_no_text_is_refused(file, key):
    edit_part(file.parent, lambda weights: weights.update({key: torch.ones(1)}))
    refuses(file, "names a tensor by a value of type")


@pytest.mark.parametrize(
    "value", [{"step": 3}, [torch.ones(3)], torch.ones(3), None, {"model": {"a": torch.ones(1)}}]
)
def test_a_file_of_something_else_is_refused(file, value):
    torch.save(value, file)
    refuses(file, "a dictionary of tensors by name")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            r"is a pointer of Git LFS .* `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"x" * 1000, "is damaged, or no zip archive"),
        (pickle.dumps({"norm.weight": [1.0, 2.0]}), "is damaged, or no zip archive"),
    ],
    ids=["empty", "pointer", "page", "noise", "bare pickle"],
)
def test_what_is_no_archive_is_named(file, content, words):
    file.write_bytes(content)
    refuses(file, words)


def test_a_file_of_before_torch_1_6_is_refused(file):
    torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)
    refuses(file, r"no zip archive .* get the checkpoint from its original source")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_download_cut_short_is_refused(file, share):
    os.truncate(file, int(file.stat().st_size * share))
    refuses(file, "is damaged")


@pytest.mark.skipif(os.name == "nt", reason="no pipes among the files of Windows")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_opened(file, make):
    file.unlink()
    make(file)
    refuses(file, r"consolidated\.00\.pth is a folder, a pipe or a device")


def compress(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_a_compressed_archive_is_refused(file):
    compress(file)
    refuses(file, r"is refused: it is compressed, .* could fill the memory")


MEASURE = """
import resource, sys, decoding_llama3 as dl
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    dl.load_model(sys.argv[1])
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.long
@LINUX
@pytest.mark.parametrize("record", ["data.pkl", "data/0", "version", ".format_version"])
def test_an_archive_that_would_grow_a_thousandfold_takes_no_memory(file, record):
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename.split("/", 1)[1]: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in entries.items():
            archive.writestr(f"consolidated.00/{name}", bytes(3 * 10**8) if name == record else content)
    run = subprocess.run([sys.executable, "-c", MEASURE, file.parent], capture_output=True, text=True, check=True)
    *message, megabytes = run.stdout.splitlines()
    assert "could fill the memory" in message[-1]
    assert int(megabytes) < 60


def test_entries_that_share_their_bytes_are_refused(file):
    """A zip bomb without compression: many entries of the directory point at one place."""
    with zipfile.ZipFile(file, "a") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        for i in range(1000):
            copy = zipfile.ZipInfo(f"consolidated.00/data/{1000 + i}")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(copy, field, getattr(largest, field))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    refuses(file, "could fill the memory")


def test_a_pickle_of_many_megabytes_is_refused(file):
    edit_part(file.parent, lambda weights: weights.update({"x" * 5_000_000: torch.ones(1)}))
    refuses(file, "pickle of at most 4,194,304 bytes")


def test_an_escape_code_in_a_name_is_not_printed(file):
    edit_part(file.parent, lambda weights: weights.update({"\x1b[31mred": torch.ones(1)}))
    refuses(file, r"has, beyond .*, '\\x1b\[31mred'")
