"""The runs of the ablation lab as CSV files: what is done, what is missing, what was found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple, get_type_hints

from decoding_llama3.experiments.ablation.run import LossPoint
from decoding_llama3.experiments.ablation.text import Text
from decoding_llama3.experiments.ablation.variants import CHOICES, GROUPS, LLAMA3, Settings, Variant
from decoding_llama3.experiments.files import read_csv, write_csv
from decoding_llama3.inference.arguments import check_whole
from decoding_llama3.inference.data import data_directory

CURVE_COLUMNS = {"variant": str, "seed": int, "step": int, "train_loss": float, "held_out_loss": float}
RUN_COLUMNS = {"group": str, "variant": str, "seed": int, "held_out_loss": float}
CONDITIONS = get_type_hints(Settings) | {"text_sha256": str}


class Run(NamedTuple):
    """One training of the lab; `group` is `LLAMA3` for the baseline that all groups share."""

    group: str
    name: str
    seed: int

    @property
    def variant(self) -> Variant:
        return Variant() if self.group == LLAMA3 else GROUPS[self.group][self.name]


def missing_runs(groups: Sequence[str], seeds: int, settings: Settings, out: Path) -> list[Run]:
    """The runs of these groups, the baseline among them, that `out` does not hold yet; seeds from 0 on.

    Other settings or another text than those of the runs in `out` raise ValueError, and so do damaged files.
    """
    check_whole("seeds", seeds, 1)
    for group in groups:
        _check_group(group)
    done = {run_of(row): row for row in _rows(out / "runs.csv", RUN_COLUMNS)}
    expected = conditions(settings, Text.of_python())
    for run, row in done.items():
        for name, value in expected.items():
            if row.get(name) != str(value):
                raise ValueError(
                    f"{out / 'runs.csv'} has runs with {name} {row.get(name)} ({run.group}, {run.name}), but "
                    f"{name} {value} was asked for: give another --out, or delete that folder"
                )
    runs = [Run(LLAMA3, "Llama 3", seed) for seed in range(seeds)]
    runs += [Run(g, name, seed) for seed in range(seeds) for g in groups for name in CHOICES[g][1:]]
    return [run for run in sorted(runs, key=lambda run: run.seed) if run not in done]


def conditions(settings: Settings, text: Text) -> dict:
    """All that a loss depends on beside the variant and the seed."""
    return asdict(settings) | {"vocabulary": len(text.vocabulary), "text_sha256": text.sha256[:12]}


def keep_run(run: Run, row: dict, points: Sequence[LossPoint], out: Path) -> dict:
    """Keep a run's curve and its row of runs.csv; return the row. A damaged runs.csv raises ValueError."""
    # The curve first: a run counts as done by its row in runs.csv, and only then is its curve there for sure.
    path = out / f"{run.group}.csv"
    rows: list[dict] = [
        old for old in _rows(path, CURVE_COLUMNS) if (old["variant"], old["seed"]) != (run.name, str(run.seed))
    ]
    for point in points:
        losses = {"train_loss": f"{point.train_loss:.4f}", "held_out_loss": f"{point.held_out_loss:.4f}"}
        rows.append({"variant": run.name, "seed": run.seed, "step": point.step, **losses})
    write_csv(path, rows)
    write_csv(
        out / "runs.csv", [old for old in _rows(out / "runs.csv", RUN_COLUMNS) if run_of(old) != run] + [row]
    )
    return row


def run_of(row: Mapping) -> Run:
    """The run that a row of runs.csv is of."""
    return Run(row["group"], row["variant"], int(row["seed"]))


def _rows(path: Path, columns: Mapping[str, Callable]) -> list[dict[str, str]]:
    """The rows of a file, [] where there is none; raises ValueError for columns or numbers that are not right."""
    if not path.exists():
        return []
    rows = read_csv(path, list(columns))
    for number, row in enumerate(rows, start=2):
        for name, kind in columns.items():
            try:
                kind(row[name])
            except ValueError:
                raise ValueError(
                    f"line {number} of {path} has {row[name]!r:.40} for {name}: delete the folder, and train anew"
                ) from None
    return rows


def _check_group(group: str) -> None:
    if group not in GROUPS:
        raise ValueError(f"no group of variants is called {group!r}; there are {', '.join(GROUPS)}")


def read_runs(folder: Path | None = None) -> list[dict]:
    """The rows of runs.csv, one per run, values as text; from the package's own data without `folder`.

    A damaged file raises ValueError.
    """
    return _rows((folder or data_directory() / "ablations") / "runs.csv", RUN_COLUMNS)


def first_run(folder: Path | None = None) -> dict[str, str]:
    """The first row of runs.csv; raises ValueError where there is none, or where it lacks a setting."""
    path = (folder or data_directory() / "ablations") / "runs.csv"
    rows = _rows(path, RUN_COLUMNS | CONDITIONS)
    if not rows:
        raise ValueError(f"{path} has no runs: make them with `decoding-llama3 ablate --out {path.parent}`")
    return rows[0]


def kept_settings(folder: Path | None = None) -> Settings:
    """The settings of the runs that are kept in `folder`; raises ValueError as `first_run` does."""
    row, kinds = first_run(folder), get_type_hints(Settings)
    return Settings(**{field.name: kinds[field.name](row[field.name]) for field in fields(Settings)})


def read_curves(group: str, folder: Path | None = None) -> dict[str, dict[int, list[LossPoint]]]:
    """Variant: seed: points, Llama 3's own variant first; from the package's own data without `folder`.

    Raises ValueError where a run of the group is missing or a file damaged.
    """
    _check_group(group)
    folder = folder or data_directory() / "ablations"
    curves = {name: {} for name in GROUPS[group]}
    baseline = CHOICES[group][0]
    for file, rename in ((LLAMA3, {"Llama 3": baseline}), (group, {})):
        for row in _rows(folder / f"{file}.csv", CURVE_COLUMNS):
            name = rename.get(row["variant"], row["variant"])
            if name not in curves:
                raise ValueError(f"{folder / file}.csv has a variant {name!r:.40}; there are {', '.join(curves)}")
            point = LossPoint(int(row["step"]), float(row["train_loss"]), float(row["held_out_loss"]))
            curves[name].setdefault(int(row["seed"]), []).append(point)
    missing = [name for name, seeds in curves.items() if not seeds]
    if missing:
        raise ValueError(
            f"{folder} has no run of {', '.join(missing)}: make it with "
            f"`decoding-llama3 ablate {group} --out {folder}`"
        )
    return curves
