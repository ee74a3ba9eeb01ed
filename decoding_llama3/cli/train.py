"""`train`: train a small model on a folder of texts."""

from pathlib import Path
from typing import Annotated

import typer

from decoding_llama3.cli.files import check_output_folder
from decoding_llama3.cli.models import config_of, read_texts
from decoding_llama3.cli.options import MACHINE
from decoding_llama3.cli.terminal import note, progress, waiting

MODEL, DATA, STEPS = "The model", "What a step reads", "The steps"


def _option(text: str, panel: str, *names: str, **rest):
    return typer.Option(*names, help=text, rich_help_panel=panel, **rest)


def train(
    folder: Annotated[Path, typer.Argument(help="A folder of .txt files, one paragraph per line.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where checkpoints, curve and model go.")],
    held_out: Annotated[str, typer.Option(help="The file that neither tokenizer nor model may see.")],
    config: Annotated[str, _option("The shape: a preset, or a checkpoint's directory.", MODEL)] = "tiny",
    steps: Annotated[int, _option("Updates of the weights.", STEPS, min=1)] = 2600,
    batch: Annotated[int, _option("Sequences per step.", DATA, min=1)] = 16,
    seq_len: Annotated[int, _option("Tokens per sequence.", DATA, min=2)] = 512,
    short_steps: Annotated[int, _option("First steps, with half as long sequences.", DATA, min=0)] = 0,
    repeats: Annotated[str, _option("Random words, repeated: step:share:longest,...", DATA)] = "",
    learning_rate: Annotated[float, _option("The highest one, after the warm-up.", STEPS)] = 6e-3,
    warmup: Annotated[int, _option("First steps, in which the learning rate rises.", STEPS, min=1)] = 100,
    seed: Annotated[int, _option("The same seed, text and settings give the same model.", STEPS)] = 3,
    bfloat16: Annotated[bool, _option("Matrix products in bfloat16.", MACHINE, "--bfloat16")] = False,
    compile: Annotated[bool, _option("Needs a C++ compiler; half again as fast.", MACHINE, "--compile")] = False,
    device: Annotated[str, _option("cpu, cuda, mps.", MACHINE)] = "cpu",
) -> None:
    """Train a small model of any shape. Run the same command again to go on after a stop."""
    check_output_folder("--out", out_folder)
    with waiting("starting"):
        from decoding_llama3.experiments import training
        from decoding_llama3.inference.devices import check_device

        check_device(device)
        corpus = read_texts(folder, held_out)
    shape = {"batch": batch, "seq_len": seq_len, "short_steps": short_steps}
    how = {"learning_rate": learning_rate, "warmup": warmup, "seed": seed}
    how |= {"autocast": bfloat16, "compile": compile}
    phases = training.Repeats.parse(repeats)
    settings = training.TrainingSettings(steps=steps, repeats=phases, **shape, **how)
    records = training.train(corpus, config_of(config), settings, out_folder, device)
    with progress() as bar:
        task = bar.add_task("starting", total=steps)
        for record in records:
            bar.update(task, completed=record["step"], description=f"loss {record['loss']:.3f}")
            if record["held_out"] is not None:
                line = f"step {record['step']}: held-out loss {record['held_out']:.4f} nats per token"
                bar.console.print(line)
    note(f"the model lies in {out_folder}")
