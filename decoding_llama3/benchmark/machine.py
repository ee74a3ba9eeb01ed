"""What a figure depends on beside the model: device, processor, threads, versions."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import torch


def version(package: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine_info(device: str) -> dict:
    """Device, processor, threads and versions; of a CUDA card its capability, bytes of memory and driver, too."""
    info = {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    return info | (_card_info(device) if device.startswith("cuda") else {})


def _card_info(device: str) -> dict:
    card = torch.cuda.get_device_properties(device)
    return {
        "capability": f"{card.major}.{card.minor}",
        "memory_bytes": card.total_memory,
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver, as its own command gives it."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = found.stdout.split() if found.returncode == 0 else []
    return lines[0] if lines else None


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file() and (found := re.search(r"^model name\s*:\s*(.+)$", listed.read_text(), re.MULTILINE)):
        return found[1].strip()
    return platform.processor() or platform.machine()
