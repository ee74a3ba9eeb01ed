"""`ablate`: train small Llamas with one part exchanged."""

from pathlib import Path
from typing import Annotated

import typer

from decoding_llama3.cli.files import check_output_folder
from decoding_llama3.cli.terminal import note, progress, waiting


def ablate(
    groups: Annotated[list[str] | None, typer.Argument(help="norm, position, ...; default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the weights.")] = 1000,
    out_folder: Annotated[Path, typer.Option("--out", help="Where the curves go.")] = Path("data/ablations"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 1,
) -> None:
    """Train small Llamas with one part exchanged. Run the same command again to go on after a stop."""
    check_output_folder("--out", out_folder)
    with waiting("starting"):
        from decoding_llama3.experiments import ablation

        settings = ablation.Settings(steps=steps)
        runs = ablation.missing_runs(groups or list(ablation.GROUPS), seeds, settings, out_folder)
    with progress() as bar:
        task = bar.add_task("training", total=len(runs))
        for row in ablation.run_lab(runs, settings, out_folder, jobs):
            loss = f"held-out loss {row['held_out_loss']} nats per character, {row['seconds']} s"
            bar.console.print(f"{row['group']}, {row['variant']}, seed {row['seed']}: {loss}")
            bar.advance(task)
    note(f"the curves lie in {out_folder}")
