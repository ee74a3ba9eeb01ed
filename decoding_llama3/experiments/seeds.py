"""Seeds of trainings and measurements, from which others are derived."""

from decoding_llama3.inference.arguments import check_whole

SEEDS = 2**32  # as many, so that torch takes what is derived from one: times 1,000,003, plus a step


def check_run_seed(seed: int) -> int:
    """`seed` as an int; raises TypeError for what is no whole number, ValueError below 0 and from 2**32 on."""
    number = check_whole("the seed", seed, 0)
    if number >= SEEDS:
        raise ValueError(f"the seed must be below 2**32, found {number!r:.40}")
    return number
