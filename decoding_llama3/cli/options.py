"""The options that several commands share. Nothing here needs torch: help is to come at once."""

from typing import Annotated, Any

import typer

DTYPES = ("float32", "bfloat16", "float16")
CHECKPOINT = "A Hugging Face or Meta directory, a GGUF file, an Ollama model's name, 'smollm2' or 'tiny'."
TEXT, SAMPLING, MACHINE = "The text", "How the text is drawn", "How the model runs"  # panels of the help

Checkpoint = Annotated[str, typer.Argument(help=CHECKPOINT)]
Tokens = Annotated[
    int, typer.Option("--tokens", "-n", min=0, help="New tokens at most.", rich_help_panel=SAMPLING)
]
TopP = Annotated[
    float,
    typer.Option(
        help="Draw from the most probable tokens that hold this probability together, above 0, at most 1.",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="The same seed gives the same text; default: one at random, which is printed.",
        rich_help_panel=SAMPLING,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, mps; default: the fastest there is.", rich_help_panel=MACHINE)
]
Dtype = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(DTYPES)}; default: what the device does well.", rich_help_panel=MACHINE),
]
Quantize = Annotated[
    str | None,
    typer.Option(help="int8: one byte per weight; default: if only that fits.", rich_help_panel=MACHINE),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the decode step: slow start, faster tokens.", rich_help_panel=MACHINE),
]
ShowTokens = Annotated[
    bool, typer.Option("--show-tokens", help="Show the tokens of prompt and answer.", rich_help_panel=TEXT)
]
TokenizerPath = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="tokenizer.model or .json, 'llama3' or 'tiny'; default: the checkpoint's.",
        rich_help_panel=MACHINE,
    ),
]


def temperature_option(default: str) -> Any:
    """The option --temperature of a command, whose default is `default`, in words."""
    text = f"0: always the most probable token; the larger, the more varied. Default: {default}."
    return typer.Option(min=0.0, help=text, show_default=False, rich_help_panel=SAMPLING)
