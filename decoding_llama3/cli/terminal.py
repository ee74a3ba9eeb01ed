"""The two streams of a command: data goes to standard output, what is said about it to standard error.

Data is written as it is, never through rich, which would read emoji codes and markup in it. What a terminal would
obey is made visible where it comes from a file or a model: an escape code can rewrite what was printed before.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from decoding_llama3.cli.several import is_first

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line end


def prepare_streams() -> None:
    """A character that the encoding of standard output lacks becomes '?'; line ends stay what they are.

    Of several processes that share a model only the first has an output.
    """
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace", newline="")


def visible(text: str) -> str:
    r"""`text` with its control characters written out, as \x1b; tabs and line ends stay."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def write(text: str) -> None:
    """Data to standard output, byte for byte, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_generated(text: str) -> None:
    """What a model wrote: on a terminal with its control characters visible, in a pipe or file as it is."""
    write(visible(text) if sys.stdout.isatty() else text)


def note(line: str) -> None:
    """A line about what is going on."""
    if is_first():
        typer.secho(visible(line), err=True, dim=True)


def complain(line: str) -> None:
    """The one line of an error."""
    typer.secho("error: " + visible(line).replace("\n", "\\n"), err=True, fg="red", bold=True)


def console(stderr: bool = False) -> "Console":
    """For tables and progress. It takes text for text: no markup, no emoji codes."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextmanager
def waiting(for_what: str) -> Iterator[Callable[[str], None]]:
    """A spinner while something takes long, if a terminal shows it; yields what replaces its words."""
    if not sys.stderr.isatty() or not is_first():
        yield lambda line: None
        return
    from rich.text import Text

    with console(stderr=True).status(Text(visible(for_what))) as status:
        yield lambda line: status.update(Text(visible(line)))


def progress() -> "Progress":
    """A bar with what is done, what there is to do, and the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console(stderr=True))
