"""The command line, with a failure in the second of several processes: `failing_command.py HOW ARGUMENT...`."""

import os
import signal
import sys
from itertools import count

from decoding_llama3.cli import main
from decoding_llama3.inference import parallel
from decoding_llama3.inference.generator import Generator

TOKENS = 4  # that come before the failure
READING, COMPUTING, KILLED = "reading", "computing", "killed"


def lose_disk(*arguments, **options):
    raise ValueError("the disk of the second process has gone: mount it again")


def check_finite(generator: Generator, token: int, seen=count()) -> int:  # noqa: B008 (one count for all tokens)
    if next(seen) == TOKENS:
        if how == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return token


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if os.environ["RANK"] == "1" and how == READING:
        parallel.load_share = lose_disk
    elif os.environ["RANK"] == "1":
        Generator._check_finite = check_finite
    main()
