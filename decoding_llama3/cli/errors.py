"""What goes wrong in a command ends in one sentence and an exit code, and only a fault of ours in a traceback."""

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pickle import UnpicklingError
from typing import Any

import typer
from typer.core import TyperGroup

from decoding_llama3.cli.several import is_lost_connection, is_to_tell
from decoding_llama3.cli.terminal import complain, prepare_streams

WRONG_CALL, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # the last two are 128 and the number of the signal
FAULTS_OF_OURS = (
    AssertionError,
    AttributeError,
    FloatingPointError,
    LookupError,
    NameError,
    ZeroDivisionError,
)
REMEDIES = {
    errno.EACCES: "give another place, or change its permissions",
    errno.EPERM: "give another place, or change its permissions",
    errno.EROFS: "give a place that can be written to",
    errno.ENOSPC: "free some space, or give a place on another disk",
    errno.EDQUOT: "free some space, or give a place on another disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: "give the name of a file",
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "check the name",
}
UsageError: Any = typer.BadParameter.__base__  # of click, which some versions of typer contain and others import
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|cannot allocate", re.IGNORECASE)


class SentencesForErrors(TyperGroup):
    """All commands, each under `one_sentence_errors`. `ctx` is a context of click, which typer may contain."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        prepare_streams()
        self._typed = list(args) or ["--help"]
        with one_sentence_errors(self._typed):
            return super().parse_args(ctx, list(self._typed))

    def invoke(self, ctx: Any) -> Any:
        with one_sentence_errors(self._typed):
            return super().invoke(ctx)


@contextmanager
def one_sentence_errors(typed: Sequence[str] = ()) -> Iterator[None]:
    """An error becomes one sentence and exit code 2; Ctrl-C becomes 130; a closed pipe is no error to speak of.

    `typed` are the words of the call, for the error of an option to name its value.
    """
    try:
        yield
        sys.stdout.flush()  # a full disk or a closed pipe may show only now
    except (typer.Exit, *FAULTS_OF_OURS):
        raise
    except ImportError as error:  # of a library that is missing or broken; a name of ours is a fault of ours
        if (error.name or "").startswith("decoding_llama3"):
            raise
        _tell(f"{error}: install decoding-llama3 again, with the extra that this command needs")
        raise typer.Exit(WRONG_CALL) from None
    except KeyboardInterrupt:
        if is_to_tell():
            sys.stderr.write("\n")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        is_to_tell()  # nothing, but the other processes are not to tell of it either
        _discard_output()
        raise typer.Exit(BROKEN_PIPE) from None
    except Exception as error:
        _discard_output()
        _tell(_of_call(error, typed) if isinstance(error, UsageError) else sentence(error))
        raise typer.Exit(WRONG_CALL) from None


def sentence(error: Exception) -> str:
    """What `error` means to who typed the command."""
    if isinstance(error, UnicodeDecodeError):
        found = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
        return f"a file or an input is not UTF-8 text ({found}): convert it to UTF-8"
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    if isinstance(error, (ValueError, TypeError)) and str(error):
        return str(error)
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read: is it the right one?"
    if isinstance(error, UnpicklingError):  # torch's own message advises to run what the file holds
        return "a saved file is damaged, or holds more than tensors, and was not read: delete it, or name another"
    if is_lost_connection(error):
        return "another of the processes that share the model has ended without a word: did memory run out?"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(reason):
        return f"memory ran out ({reason}): take a smaller model, --quantize int8, or fewer tokens"
    return f"this cannot be computed here ({type(error).__name__}: {reason}): try --device cpu, or other values"


def _tell(line: str) -> None:
    if is_to_tell():
        complain(line)


def _of_call(error: Any, typed: Sequence[str]) -> str:
    """What typer finds wrong with the words of the call, with the value of the option that is wrong."""
    message = error.format_message().strip().rstrip(".")
    value = _value_of(getattr(getattr(error, "param", None), "opts", ()), typed)
    if value is not None and repr(value) not in message:
        message += f", found {value!r}"
    see = f": see '{error.ctx.command_path} --help'" if error.ctx is not None else ""
    return message[:1].lower() + message[1:] + see


def _value_of(options: Sequence[str], typed: Sequence[str]) -> str | None:
    """What follows the last of `options` in the words of a call, None if none is there."""
    value = None
    for word, following in pairwise(typed):
        value = following if word in options else value
    for option in options:
        value = next((w.removeprefix(f"{option}=") for w in typed if w.startswith(f"{option}=")), value)
    return value


def _of_system(error: OSError) -> str:
    name = "" if error.filename is None else f" {str(error.filename)!r}"
    name = name if len(name) < 200 else f"{name[:80]}...{name[-20:]}"
    code = error.errno or 0
    remedy = REMEDIES.get(code, "check the name and the place")
    return f"the system refuses{name or ' to read or write'} ({os.strerror(code).lower()}): {remedy}"


def _discard_output() -> None:
    """Where standard output cannot be written any more, the interpreter must not try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
