"""One attempt to load a file that was changed at random."""

import os
import time
from pathlib import Path

import torch
from torch import Tensor

import decoding_llama3 as dl

TIMES = int(os.environ.get("FUZZ", "2000"))
SECONDS = 5  # most that one may take, on a busy machine


def attempt(folder: Path, seed: int) -> dict[str, Tensor] | None:
    """The weights, or None where they were refused: soon, in one printable sentence that names the place."""
    started, state, message = time.perf_counter(), None, None
    try:
        state = dl.load_model(folder, dtype=torch.float32).state_dict()
    except ValueError as error:
        message = str(error)
    except BaseException as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__} in place of a ValueError") from error
    assert time.perf_counter() - started < SECONDS, seed
    assert message is None or (message.isprintable() and len(message) < 1000 and str(folder) in message), seed
    return state
