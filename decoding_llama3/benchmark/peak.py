"""The most memory that a process has held, of the host and of the card."""

import re
import sys
from pathlib import Path

import psutil
import torch


def reset_peaks(device: str) -> bool:
    """Start the peaks anew; whether the host's was: only Linux can, elsewhere it is that of the whole process."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(device: str) -> dict[str, int | None]:
    """The most bytes of this process in memory ("host"), and of tensors on a CUDA card ("device"; else None)."""
    on_card = torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None
    return {"host": _host_peak_bytes(), "device": on_card}


def _host_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return 1024 * int(found[1])
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
