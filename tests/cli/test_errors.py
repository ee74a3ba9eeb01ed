"""Which error becomes a sentence, which a traceback, and with which exit code the command ends."""

import errno
import pickle
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
import typer
from typer.testing import CliRunner

from decoding_llama3.cli.errors import SentencesForErrors


def run_raising(error: BaseException):
    """A command of its own that raises `error`."""
    app = typer.Typer(cls=SentencesForErrors, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def all_commands() -> None: ...

    @app.command()
    def work() -> None:
        raise error

    return CliRunner().invoke(app, ["work"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("a is 1, expected 2: give 2"), "a is 1, expected 2: give 2"),
        (TypeError("a is text, found 'b': encode it"), "a is text, found 'b': encode it"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.json"),
            "'out.json' (no space left on device): free",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "the system refuses to read or write"),
        (PermissionError(errno.EACCES, "Permission denied", "a\x1b[31m"), r"'a\x1b[31m' (permission denied)"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x" * 5000), "xxx...xxx"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "memory ran out"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "memory ran"),
        (MemoryError(), "memory ran out"),
        (RuntimeError("shapes differ:\n  a\n  b"), "cannot be computed here (RuntimeError: shapes differ)"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (OverflowError("int too large"), "OverflowError: int too large"),
        (EOFError(), "cannot be computed here (EOFError"),
        (pickle.UnpicklingError("Re-running with weights_only=False will likely succeed"), "not read: delete it"),
        (UnicodeDecodeError("utf-8", b"ab\xff", 2, 3, "invalid"), "UTF-8 text (byte 0xff at position 2)"),
        (ModuleNotFoundError("No module named 'tokenizers'", name="tokenizers"), "No module named 'tokenizers'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_user_or_the_machine_did_becomes_one_sentence(error, words):
    result = run_raising(error)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("impossible"),
        AttributeError("no such attribute"),
        KeyError("key"),
        IndexError("index"),
        NameError("name"),
        ZeroDivisionError("division"),
        ImportError("cannot import name 'x'", name="decoding_llama3.rope"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_of_the_program_keeps_its_traceback(error):
    result = run_raising(error)
    assert result.exception is error
    assert "error:" not in result.stderr


def test_interrupting_ends_with_130_and_no_word():
    result = run_raising(KeyboardInterrupt())
    assert result.exit_code == 130
    assert not result.output.strip()


def test_a_closed_pipe_is_no_error_to_speak_of():
    result = run_raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert result.exit_code == 141
    assert not result.output


def test_the_exit_code_of_a_command_stays():
    assert run_raising(typer.Exit(7)).exit_code == 7


@pytest.fixture
def long_text():
    """A command that writes for minutes, if nothing stops it."""
    command = [sys.executable, "-m", "decoding_llama3", "generate", "The", "-n", "500", "--temperature", "2"]
    # A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
    listen = None if sys.platform == "win32" else partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=listen) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of Unix")
def test_head_may_close_the_pipe(long_text):
    """As in `decoding-llama3 generate The | head -c 3`."""
    assert long_text.stdout.read(3) == b"The"
    long_text.stdout.close()
    said = long_text.stderr.read().decode()
    assert long_text.wait(60) == 141
    assert "Error" not in said
    assert "Exception ignored" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of Unix")
def test_control_c_stops_a_text_without_a_traceback(long_text):
    assert long_text.stdout.read(8).startswith(b"The")
    time.sleep(0.1)
    long_text.send_signal(signal.SIGINT)
    _, said = long_text.communicate(timeout=60)
    assert long_text.returncode == 130
    assert b"Traceback" not in said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is a full disk of Linux")
def test_a_full_disk_under_standard_output_is_a_sentence():
    command = [sys.executable, "-m", "decoding_llama3", "generate", "The", "-n", "2"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: the system refuses to read or write (no space left on device): free some space")
