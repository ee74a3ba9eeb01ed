"""How the circuit of `induction` forms, with several seeds: what a model can do and what its heads attend to.

`python -m decoding_llama3.experiments.copying PATH.csv` trains all of them anew.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_type_hints

import torch

from decoding_llama3.experiments import induction
from decoding_llama3.experiments.files import read_csv, write_csv
from decoding_llama3.inference.data import data_directory
from decoding_llama3.inspect.probe import attention_weights
from decoding_llama3.transformer import Transformer

KINDS = {  # blocks, steps, and after how many letters a row begins again
    "two blocks": (2, 300, induction.PERIODS),
    "one block": (1, 300, induction.PERIODS),
    "one block, always 12": (1, 150, range(12, 13)),
}


@dataclass(frozen=True)
class Sight:
    """A model at one step of its training.

    `accuracy` is the share of repeated letters that it predicts in rows as it learns from, `at_9` in rows
    that begin again after nine letters. `before` is the weight that the best head of the first block gives to the
    letter before, `copying` what the best of the last block gives to the letter after the previous occurrence.
    """

    kind: str
    seed: int
    step: int
    accuracy: float
    at_9: float
    before: float
    copying: float


def watch_copier(kind: str, seed: int) -> list[Sight]:
    """Train one model of `KINDS`, looking at it at every tenth step."""
    n_blocks, steps, periods = KINDS[kind]
    model, seen = induction.build_copier(n_blocks, seed), []
    for moment in induction.train_copier(model, steps, seed, periods):
        shares = induction.accuracy(model, periods), induction.accuracy(model, range(9, 10))
        seen.append(Sight(kind, seed, moment.step, *shares, *strongest_heads(model)))
    return seen


@torch.no_grad()
def strongest_heads(model: Transformer) -> tuple[float, float]:
    """The weight of the first block's best head on the letter before, and of the last block's on the letter after
    the previous occurrence.
    """
    letters, periods = induction.rows_of_repeats(64, torch.Generator().manual_seed(1))
    maps = attention_weights(model, letters)
    first, last = maps[0], maps[-1]
    place = torch.arange(letters.shape[1])
    wanted = place[:, None] - place == periods[:, None, None] - 1
    wanted &= (place > periods[:, None])[..., None]
    before = first.diagonal(-1, dim1=-2, dim2=-1).mean(dim=(0, -1)).max()
    copying = torch.stack([last[:, head][wanted].mean() for head in range(last.shape[1])]).max()
    return before.item(), copying.item()


def write_sights(path: Path, seeds: int = 5) -> None:
    """Train every kind with so many seeds, and keep what was seen as a CSV file."""
    rows = []
    for kind in KINDS:
        for seed in range(seeds):
            rows += [asdict(sight) for sight in watch_copier(kind, seed)]
    write_csv(path, [{name: f"{x:.4f}" if isinstance(x, float) else x for name, x in row.items()} for row in rows])


def read_sights(path: Path | None = None) -> list[Sight]:
    """What was kept, by default the file that comes with the package."""
    columns = get_type_hints(Sight)
    rows = read_csv(path or data_directory() / "copying.csv", list(columns))
    return [Sight(**{name: kind(row[name]) for name, kind in columns.items()}) for row in rows]


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_sights(Path(sys.argv[1]))
