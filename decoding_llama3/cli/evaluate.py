"""`evaluate`: measure a model against n-grams and compressors, and what it knows by heart."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from decoding_llama3.cli.files import check_output_file, write_result
from decoding_llama3.cli.models import load, read_texts
from decoding_llama3.cli.options import Checkpoint, Device
from decoding_llama3.cli.terminal import console, note, visible, waiting, write


def evaluate(
    folder: Annotated[Path, typer.Argument(help="The folder of .txt files that the model was trained on.")],
    held_out: Annotated[str, typer.Option(help="The file there that neither tokenizer nor model has seen.")],
    checkpoint: Checkpoint = "tiny",
    words: Annotated[
        Path | None, typer.Option(help="One word or phrase per line: in how many tales is one?")
    ] = None,
    tales: Annotated[int, typer.Option(min=1, help="Tales to sample.")] = 1000,
    prompts: Annotated[int, typer.Option(min=1, help="Passages of the text to continue.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same tales.")] = 1,
    device: Device = None,
    out_file: Annotated[Path, typer.Option("--out", help="Where the figures go.")] = Path("evaluation.json"),
) -> None:
    """Measure a model against n-grams and compressors on the same text, and what it knows by heart."""
    check_output_file("--out", out_file)
    with waiting("starting"):
        from decoding_llama3.experiments import evaluation, preparation

        texts = read_texts(folder, held_out)
        listed = None if words is None else preparation.listed_words(words)
    model, tokens_of = load(checkpoint, device=device, dtype="float32")
    settings = evaluation.EvaluationSettings(tales=tales, prompts=prompts, seed=seed)
    with waiting("starting") as show:

        def report(line: str) -> None:
            show(line)
            note(f"{time.strftime('%H:%M:%S')}  {line}")

        result = evaluation.evaluate(model, tokens_of, texts, settings, listed, report)
    write_result(out_file, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    _print_bits(result["bits_per_byte"])
    for line in _lines(result):
        write(visible(line) + "\n")
    note(f"the figures lie in {out_file}")


def _print_bits(bits: dict) -> None:
    from rich.table import Table

    rows = {"the model": bits["model"]} | {f"{order}-gram": value for order, value in bits["ngram"].items()}
    for name in ("gzip", "xz"):
        rows |= {
            f"{name}, alone": bits[name]["alone"],
            f"{name}, after the training text": bits[name]["after_training"],
        }
    table = Table("held-out text", "bits per byte", "model / this", box=None)
    for name, value in rows.items():
        table.add_row(name, f"{value:.4f}", f"{bits['model'] / value:.3f}")
    console().print(table)


def _lines(result: dict) -> list[str]:
    lines = []
    for name, found in (("held-out text", result["overlap"]), ("tales", result["tales"]["overlap"])):
        lines.append(
            f"{name}: {found['in_training']:,} of {found['sequences']:,} sequences of 8 words are in the training "
            f"text, the longest of {found['longest']['words']} words: {found['longest']['text']}"
        )
    if listed := result["tales"]["listed"]:
        lines.append(f"a listed word in {listed['texts']:,} tales, {listed['occurrences']:,} times")
    for name, known in result["memorised"].items():
        text = known["longest"]["continuation"]
        lines.append(
            f"{name.replace('_', '-')} text continued word for word: median {known['characters']['median']:.0f} "
            f"characters, 99th percentile {known['characters']['percentile_99']}, at most {len(text)}: {text!r}"
        )
    return lines
