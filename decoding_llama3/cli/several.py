"""One command in several processes, as torchrun starts them: the first speaks, and an error in one ends all."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from decoding_llama3.inference.ranks import find_ranks

T = TypeVar("T")
_LOST = re.compile(r"closed by peer|reset by peer|broken pipe|remote process exited|gloo|NCCL", re.IGNORECASE)
SHARING = ("generate", "chat", "bench")


def is_first() -> bool:
    """Whether this process is the one that reads input and writes output."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def is_alone() -> bool:
    """Whether the command runs in one process; ValueError as in `find_ranks`."""
    return find_ranks().world == 1


def from_first(value: T) -> T:
    """The first process's `value`, in all of them."""
    if is_alone():
        return value
    from decoding_llama3.inference import parallel

    return parallel.from_first(value)


def check_sharing(command: str | None, compile: bool = False) -> None:
    """Raise ValueError in several processes if `command` is none that they share, or is to compile its model."""
    n = find_ranks().world
    if n > 1 and command not in SHARING:
        raise ValueError(
            f"torchrun has started {n} processes, but {command} runs in one: of the commands only "
            f"{', '.join(SHARING)} share a model"
        )
    if n > 1 and compile:
        raise ValueError(f"{n} processes that share a model cannot compile its step: leave out --compile")


def is_to_tell() -> bool:
    """Whether the end of this process is its own, and not for the end of another, which has told why."""
    with suppress(ValueError):
        if not is_alone():
            from decoding_llama3.inference.parallel import ends_first

            return ends_first()
    return True


def is_lost_connection(error: Exception) -> bool:
    """Whether torch reports that another process cannot be reached."""
    return not is_alone() and isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


@contextmanager
def leaving_others() -> Iterator[None]:
    """At the end processes part; after an error none waits for what another will not do any more."""
    try:
        yield
    except SystemExit as end:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            _leave(end.code)
        raise


def _leave(code: object) -> None:
    if code in (0, None):
        if "decoding_llama3.inference.parallel" in sys.modules:
            sys.modules["decoding_llama3.inference.parallel"].leave()
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)
