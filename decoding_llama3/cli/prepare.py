"""`prepare`: cut and screen texts, for training."""

from pathlib import Path
from typing import Annotated

import typer

from decoding_llama3.cli.files import check_output_folder
from decoding_llama3.cli.terminal import note


def prepare(
    folder: Annotated[Path, typer.Argument(help="A folder of .txt files, one paragraph per line.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the prepared files go.")],
    ranges: Annotated[Path, typer.Option(help="A CSV with columns file, first, last: the lines to keep.")],
    words: Annotated[Path, typer.Option(help="One word or phrase per line; paragraphs with one are removed.")],
) -> None:
    """Cut front and end matter from a folder of texts and screen its paragraphs, for training."""
    check_output_folder("--out", out_folder)
    from decoding_llama3.experiments import preparation

    counts = list(preparation.prepare(folder, out_folder, ranges, words))
    kept, notes, listed = (sum(numbers) for numbers in zip(*(count[1:] for count in counts), strict=True))
    note(
        f"{len(counts)} files in {out_folder}: {kept:,} lines; {notes:,} notes and {listed:,} lines with "
        "a listed word left out"
    )
