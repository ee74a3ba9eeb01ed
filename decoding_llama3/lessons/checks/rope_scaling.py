"""Part 4 - the exercise on Llama 3.1's scaling."""

from collections.abc import Callable, Iterator
from functools import wraps

import torch
from torch import Tensor

from decoding_llama3.config import RopeScaling
from decoding_llama3.lessons.exercise import Exercise
from decoding_llama3.lessons.practice.graded import solution
from decoding_llama3.lessons.practice.same_as import Case, SameAs
from decoding_llama3.rope import rope_frequencies as frequencies
from decoding_llama3.rope import scale_frequencies as scaled

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)


def tokens_per_radian(answer: Callable) -> Callable:
    """One over the frequencies, so that an error in a slow pair counts as much as in a fast one."""

    @wraps(answer)
    def call(*arguments):
        found = answer(*arguments)
        return 1 / found if isinstance(found, Tensor) and found.is_floating_point() else found

    return call


def _scaling_inputs(head_dim: int, theta: float, **changes) -> tuple:
    settings = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 8192} | changes
    return frequencies(head_dim, theta), RopeScaling(**settings)


def _small_scaling() -> Iterator[tuple]:
    for turns in (0.5, 8.0, 2.0):
        yield torch.tensor([turns * 2 * torch.pi / 8192]), SCALING


BLEND = "keep * freqs + (1 - keep) * freqs / scaling.factor"
scale_frequencies = Exercise(
    SameAs(
        scaled,
        cases=lambda: [
            Case(_scaling_inputs(128, 500_000.0)),
            Case(_scaling_inputs(64, 500_000.0, factor=32.0), "with factor 32, as in Llama 3.2"),
            Case(
                _scaling_inputs(64, 10_000.0, low_freq_factor=2.0, high_freq_factor=3.0, original_context=1024),
                "with other borders and another context",
            ),
        ],
        smallest=_small_scaling,
        known={
            "nothing is scaled": ((BLEND, "freqs"),),
            "all pairs are divided by the factor": ((BLEND, "freqs / scaling.factor"),),
            "high and low are exchanged: fast pairs stay, slow ones are divided": (
                (BLEND, "keep * freqs / scaling.factor + (1 - keep) * freqs"),
            ),
            "slow pairs are multiplied by the factor; they are divided": (
                ("/ scaling.factor", "* scaling.factor"),
            ),
            "the share is not cut to 0 and 1, so that slow pairs turn backwards": ((".clamp(0, 1)", ""),),
            "2 pi is missing: a frequency in radians, times tokens, is no number of turns yet": (
                (" / (2 * math.pi)", ""),
            ),
            "nothing is blended in between: pairs there are kept": ((".clamp(0, 1)", ".gt(0).float()"),),
            "nothing is blended in between: pairs there are divided": ((".clamp(0, 1)", ".ge(1).float()"),),
            "in between the shares are exchanged: the faster a pair, the more of it stays": (
                (
                    BLEND,
                    "torch.where((keep > 0) & (keep < 1), 1 - keep, keep) * freqs"
                    " + (1 - torch.where((keep > 0) & (keep < 1), 1 - keep, keep)) * freqs / scaling.factor",
                ),
            ),
            "in between every pair is blended by half; the share grows with the number of turns": (
                (
                    BLEND,
                    "torch.where((keep > 0) & (keep < 1), 0.5, keep) * freqs"
                    " + (1 - torch.where((keep > 0) & (keep < 1), 0.5, keep)) * freqs / scaling.factor",
                ),
            ),
            "it blends in the wavelength; the blend is linear in the number of turns": (
                (
                    "keep = ((turns - scaling.low_freq_factor) / blend_width).clamp(0, 1)",
                    "keep = ((1 / scaling.low_freq_factor - 1 / turns) / (1 / scaling.low_freq_factor"
                    " - 1 / scaling.high_freq_factor)).clamp(0, 1)",
                ),
            ),
            "it blends the wavelengths, not the frequencies": (
                (BLEND, "1 / (keep / freqs + (1 - keep) * scaling.factor / freqs)"),
            ),
            "the share is divided by high_freq_factor, not by high - low": (
                ("scaling.high_freq_factor - scaling.low_freq_factor", "scaling.high_freq_factor"),
            ),
            "low_freq_factor is not subtracted in the share": (("(turns - scaling.low_freq_factor)", "turns"),),
            "the factor's root is used": (("/ scaling.factor", "/ scaling.factor**0.5"),),
            "the context is multiplied by the factor; the turns are those over the original one": (
                ("scaling.original_context *", "scaling.factor * scaling.original_context *"),
            ),
        },
        observe=tokens_per_radian,
        kept=("freqs",),
    ),
    solution("rope", "scale_frequencies"),
    (
        "Turns over the original context: `original_context * freqs / (2 * pi)`.",
        "A share that is 0 at low_freq_factor turns and 1 at high_freq_factor, cut with `.clamp(0, 1)`.",
        "share * kept + (1 - share) * divided.",
    ),
)
