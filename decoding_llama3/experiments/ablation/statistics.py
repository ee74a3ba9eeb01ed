"""Whether a variant's loss differs from Llama 3's by more than chance."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decoding_llama3.experiments.ablation.run import Curves, LossPoint
from decoding_llama3.experiments.ablation.store import read_curves


@dataclass(frozen=True)
class Difference:
    """Final held-out loss of a variant minus Llama 3's, over seeds; in nats per character."""

    mean: float
    sd: float  # standard deviation over the seeds
    lowest: float
    highest: float
    seeds: int
    verdict: Literal["lower", "higher", "none"]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the mean of the paired differences, by Student's t."""
        half = T_95[min(self.seeds, max(T_95))] * self.sd / math.sqrt(self.seeds)  # of more seeds a little wide
        return self.mean - half, self.mean + half


# Student's t that chance exceeds, on one side or the other, in 5 % of cases, by the number of seeds.
T_95 = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def verdict(group: str, folder: Path | None = None) -> dict[str, Difference]:
    """For each variant but Llama 3's own: does its final loss differ by more than chance? See `compare`."""
    return compare(read_curves(group, folder))


def compare(curves: Curves) -> dict[str, Difference]:
    """Each variant against the first, over the seeds that both have (at least three).

    A difference counts, as "lower" or "higher", if its mean exceeds twice its standard deviation over the
    seeds; otherwise the verdict is "none". With five seeds that is a paired t of 4.47, which pure chance
    passes once in 90 comparisons; with three it is a t of 3.46 and once in 13. A loss that is no number counts
    as infinite. Fewer seeds raise ValueError.
    """
    (baseline, reference), *others = curves.items()
    found = {}
    for name, seeds in others:
        paired = sorted(reference.keys() & seeds.keys())
        if len(paired) < 3:
            raise ValueError(
                f"{name} and {baseline} share {len(paired)} seeds: a verdict needs 3 or more, to see their spread"
            )
        found[name] = _difference([_final(seeds[seed]) - _final(reference[seed]) for seed in paired])
    return found


def _final(points: Sequence[LossPoint]) -> float:
    loss = points[-1].held_out_loss
    return loss if math.isfinite(loss) else math.inf


def _difference(values: Sequence[float]) -> Difference:
    mean = statistics.fmean(values)
    sd = statistics.stdev(values) if math.isfinite(mean) else math.nan
    counts = math.isinf(mean) or abs(mean) > 2 * sd
    word = "none" if not counts else "lower" if mean < 0 else "higher"
    return Difference(mean, sd, min(values), max(values), len(values), word)
