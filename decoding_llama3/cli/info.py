"""`info`: what this machine can run, or what a model needs."""

from typing import Annotated

import typer

from decoding_llama3.cli.models import config_of
from decoding_llama3.cli.terminal import console, visible


def info(
    checkpoint: Annotated[str | None, typer.Argument(help="A checkpoint or a preset.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of a text; default: 8192, or the context.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.")] = 1,
) -> None:
    """Without argument: what this machine runs and how, and what is missing. With one: what that model needs."""
    from rich.table import Table
    from rich.text import Text

    from decoding_llama3.cli.machine import info_rows

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    for name, value in info_rows(None if checkpoint is None else config_of(checkpoint), context, batch):
        table.add_row(name, Text(visible(value), overflow="fold"))
    console().print(table)
