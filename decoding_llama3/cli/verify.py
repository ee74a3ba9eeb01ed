"""`verify`: compare a checkpoint, layer by layer, with another implementation of the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoding_llama3.cli.models import dtype_of
from decoding_llama3.cli.options import CHECKPOINT, MACHINE, TEXT, Device, TokenizerPath
from decoding_llama3.cli.terminal import console, note, visible, waiting, write

if TYPE_CHECKING:
    import decoding_llama3 as dl
    from decoding_llama3.comparison.verification import Verification

DIFFERS = 1  # exit code
Prompt = Annotated[
    str | None, typer.Option(help="A text to compare on; default: one of some dozen words.", rich_help_panel=TEXT)
]
Ids = Annotated[str | None, typer.Option(help="Token ids in place of a text, as 1,15,27.", rich_help_panel=TEXT)]
VerifyDtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, float16; default: float32, or bfloat16 if only that fits.",
        rich_help_panel=MACHINE,
    ),
]


def verify(
    checkpoint: Annotated[str, typer.Argument(help=CHECKPOINT)],
    prompt: Prompt = None,
    ids: Ids = None,
    tokens: Annotated[
        int, typer.Option("--tokens", "-n", min=0, help="Greedy tokens to compare.", rich_help_panel=TEXT)
    ] = 50,
    device: Device = None,
    dtype: VerifyDtype = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Compare this package with another implementation on the same checkpoint: exit code 0 if equal, else 1.

    That is transformers, for a GGUF file with the weights that the library gguf reads, and for Meta's layout
    Meta's own model. Compared are the residual stream after each part of each layer, the logits, also far into the
    context, and greedy tokens; one model is in memory at a time. Differences are relative to a token's vector.
    Rounding makes some: in float32 up to 1e-4 pass; in bfloat16, of 8 bits, up to 0.2, and only great faults show.
    """
    with waiting("starting"):
        from decoding_llama3.comparison.verification import choose_verify_dtype, oracle_of, verify_checkpoint
        from decoding_llama3.inference.checkpoint.find import read_config
        from decoding_llama3.inference.devices import best_device, check_device
    device = device or best_device()
    check_device(device)
    config = read_config(checkpoint)
    oracle_of(checkpoint)  # what is missing is said before any weight is read
    kind = dtype_of(dtype, device) if dtype else choose_verify_dtype(config, device)
    chosen, what = chosen_ids(config, checkpoint, prompt, ids, tokenizer)
    note(f"{len(chosen)} tokens: {what}")
    with waiting("starting") as report:
        found = verify_checkpoint(checkpoint, chosen, tokens, device, kind, report)
    _print_table(found)
    write(visible("\n".join(_verdict(found))) + "\n\n" + readme_line(checkpoint, found) + "\n")
    if not found.is_equal:
        raise typer.Exit(DIFFERS)


def chosen_ids(
    config: dl.LlamaConfig, checkpoint: str, prompt: str | None, ids: str | None, tokenizer: str | None = None
) -> tuple[list[int], str]:
    """The token ids to compare on, and what they are; raises ValueError for two prompts, or a wrong one."""
    from decoding_llama3.cli.generate import check_text
    from decoding_llama3.comparison.prompt import default_ids, listed_ids, text_ids

    if prompt is not None and ids is not None:
        raise ValueError("found --prompt and --ids: give one of the two")
    if ids is not None:
        return listed_ids(ids, config), "the ids given"
    if prompt is None and tokenizer is None:
        return default_ids(config, checkpoint)
    if prompt is None:
        raise ValueError("found --tokenizer without a --prompt for it: give both")
    return text_ids(check_text("the prompt", prompt), config, checkpoint, tokenizer), repr(prompt)


def place_in_words(place: str) -> str:
    """Where in the model: 'layer 3, after its attention'."""
    layer, _, part = place.partition(".")
    if part:
        return f"layer {layer}, after its {part.replace('_', '-')}"
    return {"norm": "after the last norm", "far logits": "logits far into the context"}.get(place, place)


def readme_line(checkpoint: str, found: Verification) -> str:
    """A row of README's table: name, parameters, dtype, difference of logits, equal tokens, versions."""
    from decoding_llama3.benchmark.machine import version
    from decoding_llama3.inference.memory import name_of

    name = visible(Path(checkpoint).name or checkpoint).replace("|", "\\|")
    largest = next(d.largest for d in found.differences if d.place == "logits")
    versions = f"torch {version('torch')}, {found.oracle.package} {version(found.oracle.package)}"
    cells = (name, f"{found.config.n_params:,}", name_of(found.dtype), f"{largest:.1e}")
    return "| " + " | ".join((*cells, f"{found.n_equal} of {found.n_new}", versions)) + " |"


def _print_table(found: Verification) -> None:
    from rich.table import Table

    table = Table("", "largest difference", "relative", "", box=None)
    for each in found.differences:
        beyond = "" if each.relative <= found.tolerance else "DIFFERS"
        table.add_row(place_in_words(each.place), f"{each.largest:.1e}", f"{each.relative:.1e}", beyond)
    console().print(table)


def _verdict(found: Verification) -> list[str]:
    """What was compared with what, which tokens are equal, and whether all is, in sentences."""
    from decoding_llama3.inference.memory import name_of

    lines = [f"Beside it: {found.oracle.name}."]
    if found.oracle.blind:
        lines.append(f"Not compared: {found.oracle.blind}.")
    tokens = f"Greedy tokens: {found.n_equal} of {found.n_new} equal, from the first on"
    lines.append(tokens + ("; then two are so close that rounding decides." if found.is_tie else "."))
    allowed = f"the tolerance of {name_of(found.dtype)}, {found.tolerance:g} of a token's vector"
    if found.first is not None:
        where = place_in_words(found.first.place)
        lines.append(f"DIFFERENT: first {where}, by {found.first.relative:.1e}, beyond {allowed}.")
    elif not found.tokens_agree:
        lines.append(f"DIFFERENT: all is within {allowed}, but not the greedy tokens, so look at the cache.")
    else:
        lines.append(f"EQUAL within {allowed}.")
    return lines
