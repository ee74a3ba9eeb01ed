"""The clock of all measurements, which waits for the device before it is read."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.benchmark import Measurement, Timer


def now(device: str | torch.device) -> float:
    """Seconds of a clock that first waits until the device has done all it was given."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def best_seconds(call: Callable[[], object], device: str | torch.device) -> float:
    """Fewest seconds of a call; short ones are timed many at once, so that reading the clock costs nothing."""
    return min(_repeat(call, device, min_seconds=0.1).times)


def median_seconds(call: Callable[[], object], device: str | torch.device, min_seconds: float = 2.0) -> float:
    """Median seconds of a call, repeated until `min_seconds` have passed; runs that warm up are not counted."""
    return _repeat(call, device, min_seconds).median


def median_of(call: Callable[[], object], device: str | torch.device, n: int) -> float:
    """Median seconds of `n` calls, after one to warm up: processes that wait for each other call equally often."""
    seconds = []
    for _ in range(1 + n):
        start = now(device)
        call()
        seconds.append(now(device) - start)
    return statistics.median(seconds[1:])


def _repeat(call: Callable[[], object], device: str | torch.device, min_seconds: float) -> Measurement:
    call()  # the first of all may load libraries, and would be taken for the length of a call
    timer = Timer(
        "call()", globals={"call": call}, timer=partial(now, device), num_threads=torch.get_num_threads()
    )
    return timer.blocked_autorange(min_run_time=min_seconds)
