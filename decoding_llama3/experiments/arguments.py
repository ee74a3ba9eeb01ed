"""Numbers that a caller gives, checked before any work begins."""


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise TypeError unless `value` is a whole number, ValueError if it is below `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a whole number of {least} or more, found {value!r}")
    if value < least:
        raise ValueError(f"{name} is a whole number of {least} or more, found {value}")


def check_training_seed(seed: int) -> None:
    """Raise TypeError or ValueError unless torch can draw from `seed`, and from what is derived from it."""
    check_count("the seed", seed, 0)
    if seed >= 2**32:
        raise ValueError(f"the seed is from 0 to 2**32 - 1, found {seed}")
