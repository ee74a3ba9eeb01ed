"""What two texts have in common from the beginning on."""

from collections.abc import Sequence


def prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many items, tokens or bytes, are the same from the first on."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)
