"""Whether two results are the same, and if not, what can be seen of the difference."""

from itertools import combinations

import torch
from torch import Tensor, nn

# A few times the spacing of numbers near 1: another order of the same steps rounds otherwise.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def same(found: object, right: object, tolerance: float | None = None) -> bool:
    """Equal kind, shape and dtype, and numbers within `tolerance`, by default that of the dtype."""
    if isinstance(right, Tensor):
        if not isinstance(found, Tensor) or found.shape != right.shape or found.dtype != right.dtype:
            return False
        return close(found, right, tolerance)
    if isinstance(right, (tuple, list)):
        if not isinstance(found, (tuple, list)) or len(found) != len(right):
            return False
        return all(same(f, r, tolerance) for f, r in zip(found, right, strict=True))
    if isinstance(right, dict):
        if not isinstance(found, dict) or found.keys() != right.keys():
            return False
        return all(same(found[name], value, tolerance) for name, value in right.items())
    if isinstance(right, nn.Module):
        return isinstance(found, nn.Module) and same(tensors_of(found), tensors_of(right), tolerance)
    return _same_value(plain(found), right, tolerance)


def _same_value(found: object, right: object, tolerance: float | None) -> bool:
    if isinstance(right, bool) or not isinstance(right, (int, float)):
        return type(found) is type(right) and found == right
    wanted = int if isinstance(right, int) else (int, float)
    if isinstance(found, bool) or not isinstance(found, wanted):
        return False
    both_nan = found != found and right != right
    return both_nan or abs(found - right) <= (tolerance or 0) * abs(right)


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def close(found: Tensor, right: Tensor, tolerance: float | None = None) -> bool:
    """Numbers within `tolerance`, relative and absolute; equal where the dtype has no fractions."""
    allowed = TOLERANCES.get(right.dtype, 0) if tolerance is None else tolerance
    return torch.allclose(found.double(), right.double(), rtol=allowed, atol=allowed, equal_nan=True)


def plain(value: object) -> object:
    """The Python number in a tensor or an array of one."""
    item = getattr(value, "item", None)
    return item() if item is not None and getattr(value, "ndim", None) == 0 else value


# What is seen says what the mistake is, not only where the numbers differ.
TELLING = (
    " was expected",
    "the result is torch.",
    "every ",
    "to every number",
    "exchanged",
    "shifted",
    "reversed",
    "halves",
    "was not asked",
    "has no '",
)


def is_telling(clause: str) -> bool:
    """Whether a clause of `difference` names a mistake."""
    return any(part in clause for part in TELLING) and "the shape" not in clause


def difference(found: object, right: object, tolerance: float | None = None) -> str:
    """What differs, in a clause; the numbers of `right` are not told unless they are a tensor's."""
    if isinstance(right, Tensor):
        return _of_tensors(found, right, tolerance)
    if isinstance(right, (tuple, list)):
        return _of_lists(found, right, tolerance)
    if isinstance(right, nn.Module):
        if isinstance(found, nn.Module):
            return f"the {type(right).__name__} holds something else: " + _of_lists(
                tensors_of(found), tensors_of(right), tolerance
            )
        return f"it returns {_short(found)}, where a {type(right).__name__} was expected"
    kind = {bool: "True or False", str: "a text", bytes: "bytes", int: "a number", float: "a number"}
    if isinstance(right, dict):
        return _of_dicts(found, right, tolerance)
    number = plain(found)
    if type(right) is int and isinstance(number, float):
        return f"it returns {_short(number)}, where a whole number was expected: `//` divides without a rest"
    wanted = (int, float) if type(right) in (int, float) else type(right)
    if not isinstance(number, wanted) or (isinstance(number, bool) and type(right) is not bool):
        return f"it returns {_short(found)}, where {kind.get(type(right), 'something else')} was expected"
    return f"{_short(number)} is not right"


def _of_tensors(found: object, right: Tensor, tolerance: float | None) -> str:
    if not isinstance(found, Tensor):
        return f"it returns a {type(found).__name__}, where a tensor was expected"
    if found.shape != right.shape:
        return f"the result has the shape {tuple(found.shape)}, expected was {tuple(right.shape)}"
    if found.dtype != right.dtype:
        return f"the result is {found.dtype}, expected was {right.dtype}"
    for name, test in (("nan", torch.isnan), ("infinite", torch.isinf)):
        bad = test(found) & ~test(right)
        if bad.any():
            first = bad.nonzero()[0].tolist()
            return f"{int(bad.sum())} of {bad.numel()} numbers are {name}, the first of them at {first}"
    return _of_numbers(
        found.double(), right.double(), TOLERANCES.get(right.dtype, 0) if tolerance is None else tolerance
    )


def _of_numbers(found: Tensor, right: Tensor, tolerance: float) -> str:
    for sentence, other in _readings(right):
        if other.shape == found.shape and close(found, other, tolerance):
            return sentence
    if right.abs().max() > 0 and found.numel() > 1:
        factor = ((found * right).sum() / right.square().sum()).item()
        if factor and close(found, right * factor, tolerance * abs(factor)):
            return f"every number is {factor:.4g} times what it should be"
        offset = (found - right).mean()
        if close(found, right + offset, tolerance):
            return f"to every number {offset.item():.4g} is added"
    wrong = (found - right).abs() > tolerance * (1 + right.abs())
    largest = (found - right).abs().max().item()
    return _where(wrong) or f"the shape is right, the numbers are not: they differ by up to {largest:.2g}"


def _readings(right: Tensor) -> list[tuple[str, Tensor]]:
    """The right numbers otherwise arranged."""
    readings = [("every sign is reversed", -right)]
    for axis in range(-right.dim(), 0):
        readings.append((f"the order along axis {axis} is reversed", right.flip(axis)))
        if right.shape[axis] % 2 == 0 and right.shape[axis] > 2:
            pairs, halves = right.unflatten(axis, (-1, 2)), right.unflatten(axis, (2, -1))
            at = axis - 1 if axis < 0 else axis
            sorted_pairs = pairs.transpose(at, at + 1).flatten(at, at + 1)
            readings.append((f"axis {axis} has first all even places, then all odd ones", sorted_pairs))
            readings.append(
                (f"axis {axis} has its halves interleaved", halves.transpose(at, at + 1).flatten(at, at + 1))
            )
        for shift in (1, -1):
            readings.append((f"everything is shifted by {shift} along axis {axis}", right.roll(shift, axis)))
    for one, other in combinations(range(-right.dim(), 0), 2):
        if right.shape[one] == right.shape[other]:
            readings.append((f"axes {one} and {other} are exchanged", right.transpose(one, other)))
        swapped = right.transpose(one, other)
        sentence = f"the numbers are right, but laid out as if axes {one} and {other} were exchanged"
        readings.append((sentence, swapped.reshape(right.shape)))
    return readings


def _where(wrong: Tensor) -> str:
    """Where along one axis all is right, and where all is wrong, if it is so clear."""
    for axis in range(wrong.dim()):
        others = [i for i in range(wrong.dim()) if i != axis]
        bad = wrong.amax(dim=others) if others else wrong
        if 0 < bad.sum() < bad.numel():
            right_at = (~bad).nonzero().flatten().tolist()
            wrong_at = bad.nonzero().flatten().tolist()
            return (
                f"along axis {axis - wrong.dim()} all is right at {_few(right_at)}, and wrong at {_few(wrong_at)}"
            )
    return ""


def _of_lists(found: object, right: tuple | list, tolerance: float | None) -> str:
    if not isinstance(found, (tuple, list)):
        return f"it returns {_short(found)}, where {len(right)} values were expected"
    if len(found) != len(right):
        return f"it returns {len(found)} values, expected were {len(right)}"
    for i, (f, r) in enumerate(zip(found, right, strict=True)):
        if not same(f, r, tolerance):
            return f"of its {len(right)} values number {i} is wrong: {difference(f, r, tolerance)}"
    return ""


def _of_dicts(found: object, right: dict, tolerance: float | None) -> str:
    if not isinstance(found, dict):
        return f"it returns {_short(found)}, where a dict was expected"
    if missing := [name for name in right if name not in found]:
        return f"the dict has no {missing[0]!r}"
    if more := [name for name in found if name not in right]:
        return f"the dict has a {more[0]!r}, which was not asked"
    wrong = next(name for name, value in right.items() if not same(found[name], value, tolerance))
    return f"of the dict {wrong!r} is wrong: {difference(found[wrong], right[wrong], tolerance)}"


def _few(places: list[int]) -> str:
    return ", ".join(map(str, places[:4])) + (", ..." if len(places) > 4 else "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
