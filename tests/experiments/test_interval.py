"""The interval of a mean difference: Student's t, integrated here from its density."""

import math

import numpy as np
import pytest

from decoding_llama3.experiments.ablation.statistics import T_95, Difference


@pytest.mark.parametrize("seeds", T_95)
def test_the_table_of_t_leaves_five_per_cent_outside(seeds):
    df, t = seeds - 1, np.linspace(-T_95[seeds], T_95[seeds], 20_001)
    scale = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
    density = scale * (1 + t**2 / df) ** (-(df + 1) / 2)
    inside = ((density[1:] + density[:-1]) / 2 * np.diff(t)).sum()
    assert abs(inside - 0.95) < 1e-4


def test_the_interval_lies_around_the_mean_and_narrows_with_more_seeds():
    low, high = Difference(3.0, 1.0, 0, 0, 5, "higher").interval
    assert math.isclose((low + high) / 2, 3)
    assert math.isclose(high - low, 2 * 2.776 / math.sqrt(5))
    more = Difference(3.0, 1.0, 0, 0, 50, "higher").interval
    assert more[1] - more[0] < (high - low) / 2
