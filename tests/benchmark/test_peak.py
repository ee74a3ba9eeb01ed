"""Peak memory, in a process of its own: what another test leaves behind would count."""

import subprocess
import sys

import pytest
import torch

from decoding_llama3.benchmark import peak

SCRIPT = """
import torch
from decoding_llama3.benchmark.peak import peak_bytes, reset_peaks
torch.ones(200_000_000)
if reset_peaks("cpu"):
    before = peak_bytes("cpu")["host"]
    torch.ones(100_000_000)
    print(peak_bytes("cpu")["host"] - before)
"""


def test_the_peak_of_memory_is_that_since_it_was_reset():
    """800 MB, reset, 400 MB: the difference is 400, but 0 if nothing was reset.

    Kernels count pages per processor and add them up late, which on a large machine may hide tens of MB: hence
    the wide bounds.
    """
    run = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    if not run.stdout:
        pytest.skip("this system cannot reset the peak of a process")
    assert 200e6 < int(run.stdout) < 600e6


def test_peaks_of_a_card_are_its_own(monkeypatch):
    """On a pretended card."""
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", calls.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {"cuda:1": 123}.get)
    peak.reset_peaks("cuda:1")
    assert calls == ["emptied", "cuda:1"]
    assert peak.peak_bytes("cuda:1")["device"] == 123
    assert peak.peak_bytes("cpu")["device"] is None
    assert peak.peak_bytes("cpu")["host"] > 10**7
