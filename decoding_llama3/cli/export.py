"""`export`: a checkpoint of any format, in Hugging Face's."""

from functools import reduce
from pathlib import Path
from typing import Annotated

import typer

from decoding_llama3.cli.files import check_output_folder
from decoding_llama3.cli.options import MACHINE, Checkpoint, TokenizerPath
from decoding_llama3.cli.terminal import note, waiting, write


def export(
    source: Checkpoint,
    target: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16; default: what holds every weight as it is.", rich_help_panel=MACHINE
        ),
    ] = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Write a checkpoint of any format in Hugging Face's, for transformers, vLLM and others. Prints where it lies.

    With the weights go the tokenizer, the chat template and the ids that end a text. The weights of a quantised
    GGUF file are multiplied out to float32; --dtype bfloat16 takes half of that.
    """
    check_output_folder("TARGET", target)
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"TARGET {target} is not empty: give a new folder")
    with waiting("starting"):
        import torch

        from decoding_llama3.cli.models import dtype_of
        from decoding_llama3.inference.checkpoint.export import save_huggingface
        from decoding_llama3.inference.checkpoint.find import open_checkpoint
        from decoding_llama3.inference.load import load_model
        from decoding_llama3.inference.tokenizers.find import load_tokenizer
    stored = [tensor.dtype for tensor in open_checkpoint(source).tensors.values()]
    floats = [kind for kind in stored if isinstance(kind, torch.dtype)]  # load_model names one that is none
    kind = reduce(torch.promote_types, floats, torch.bfloat16) if dtype is None else dtype_of(dtype, "cpu")
    with waiting(f"loading {source}"):
        tokens_of = load_tokenizer(tokenizer or source, source)
        model = load_model(source, "cpu", kind)
    with waiting(f"writing {target}"):
        save_huggingface(model, target, kind, tokenizer=tokens_of)
    note(f"{model.config.n_params:,} weights in {str(kind).removeprefix('torch.')}, {tokens_of.n_vocab:,} tokens")
    write(f"{target}\n")
