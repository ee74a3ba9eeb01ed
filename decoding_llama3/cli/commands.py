"""The command `decoding-llama3`, a file per subcommand."""

import sys
from typing import Annotated

import typer

from decoding_llama3.cli.ablate import ablate
from decoding_llama3.cli.bench import bench
from decoding_llama3.cli.chat import chat
from decoding_llama3.cli.compare import compare
from decoding_llama3.cli.download import download
from decoding_llama3.cli.errors import SentencesForErrors
from decoding_llama3.cli.evaluate import evaluate
from decoding_llama3.cli.export import export
from decoding_llama3.cli.generate import generate
from decoding_llama3.cli.info import info
from decoding_llama3.cli.list_models import models
from decoding_llama3.cli.prepare import prepare
from decoding_llama3.cli.several import check_sharing, leaving_others
from decoding_llama3.cli.train import train
from decoding_llama3.cli.verify import verify

app = typer.Typer(
    cls=SentencesForErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Llama 3, small enough to read.",
)
RUN = (generate, chat, info, models, download, export, verify, compare, bench)
TRAIN = (prepare, train, ablate, evaluate)
for command in (*RUN, *TRAIN):
    app.command()(command)


def main(name: str = "decoding-llama3") -> None:
    """Run the command that `sys.argv` holds, under this name in its help, and exit."""
    with leaving_others():
        app(prog_name=name)


def _print_version(wanted: bool) -> bool:
    if not wanted:
        return False
    import platform
    from importlib import metadata

    found = {}
    for package in ("decoding-llama3", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "(not installed)"
    packages = ", ".join(f"{package} {number}" for package, number in found.items())
    sys.stdout.write(f"{packages}, Python {platform.python_version()}\n")
    raise typer.Exit


@app.callback()
def _options_of_all_commands(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    check_sharing(context.invoked_subcommand)
