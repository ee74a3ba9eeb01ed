"""What a figure depends on beside the model, on this machine and on a pretended card."""

import json
import platform
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch

from decoding_llama3.benchmark import machine


def test_the_machine_of_a_cpu_names_processor_threads_and_versions():
    info = machine.machine_info("cpu")
    assert (info["device"], info["threads"]) == ("cpu", torch.get_num_threads())
    assert (info["torch"], info["python"]) == (torch.__version__, platform.python_version())
    assert info["processor"]
    assert "driver" not in info
    json.dumps(info)


@pytest.mark.parametrize(
    ("command", "code", "said", "driver"),
    [
        ("/usr/bin/nvidia-smi", 0, "550.54.15\n550.54.15\n", "550.54.15"),
        ("/usr/bin/nvidia-smi", 9, "NVIDIA-SMI has failed", None),
        (None, 0, "", None),
    ],
)
def test_a_card_has_capability_memory_and_driver(monkeypatch, command, code, said, driver):
    card = SimpleNamespace(major=7, minor=5, total_memory=15_843_721_216)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(shutil, "which", lambda name: command)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **how: subprocess.CompletedProcess(command, code, stdout=said)
    )
    info = machine.machine_info("cuda")
    assert (info["device"], info["capability"], info["memory_bytes"]) == ("Tesla T4", "7.5", 15_843_721_216)
    assert info["driver"] == driver


def test_a_package_that_is_not_installed_has_no_version():
    assert machine.version("torch") == torch.__version__
    assert machine.version("no-such-package") is None
